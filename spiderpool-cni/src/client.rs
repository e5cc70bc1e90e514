//! Asks the agent, by HTTP over its unix socket: one connection per question, no runtime.

mod http;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use spiderpool_api::agent::coordinator::{CoordinatorConfig, GetCoordinatorArgs};
use spiderpool_api::agent::dataplane::{Attachment, RegisterNics, RegisteredNics};
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamAddResponse, IpamDelArgs};
use spiderpool_api::agent::path;
use thiserror::Error;

/// For an allocation, as upstream's.
const ALLOCATE: Duration = Duration::from_secs(100);
/// For a question that the agent answers from memory.
const ASK: Duration = Duration::from_secs(30);
/// For what must not hold up the end of a pod.
const FORGET: Duration = Duration::from_secs(3);

/// The agent did not do what it was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("{}: {source}; check that spiderpool-agent runs on this node", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not answer, or hung up.
    #[error("{method} {path}: {source}")]
    Io {
        /// HTTP method.
        method: &'static str,
        /// HTTP path.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It says no.
    #[error("{text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        text: String,
    },
    /// It answers something that we do not understand.
    #[error("{method} {path}: the answer is not understood: {reason}")]
    Answer {
        /// HTTP method.
        method: &'static str,
        /// HTTP path.
        path: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl ClientError {
    /// There is no agent to ask.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Io { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 502..=504),
            Self::Answer { .. } => false,
        }
    }
}

/// The agent of this node.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// By its socket.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Allocates addresses.
    pub fn allocate(&self, args: &IpamAddArgs) -> Result<IpamAddResponse, ClientError> {
        self.ask("POST", path::IP, args, ALLOCATE)
    }

    /// Releases a NIC's addresses.
    pub fn release(&self, args: &IpamDelArgs) -> Result<(), ClientError> {
        self.call("DELETE", path::IP, args, ALLOCATE).map(drop)
    }

    /// SpiderCoordinator's settings for a pod.
    pub fn coordinator_config(&self, args: &GetCoordinatorArgs) -> Result<CoordinatorConfig, ClientError> {
        self.ask("GET", path::COORDINATOR_CONFIG, args, ASK)
    }

    /// Registers a pod's NICs with the dataplane.
    pub fn register_nics(&self, nics: &RegisterNics) -> Result<RegisteredNics, ClientError> {
        self.ask("PUT", path::DATAPLANE_NICS, nics, ASK)
    }

    /// Takes an attachment out of the dataplane.
    pub fn unregister_nics(&self, attachment: &Attachment) -> Result<(), ClientError> {
        self.call("DELETE", path::DATAPLANE_NICS, attachment, FORGET).map(drop)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &'static str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        let answer = self.call(method, path, body, timeout)?;
        serde_json::from_slice(&answer).map_err(|e| ClientError::Answer {
            method,
            path,
            reason: e.to_string(),
        })
    }

    /// The body of a good answer.
    fn call(
        &self,
        method: &'static str,
        path: &'static str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let failed = |source| ClientError::Io { method, path, source };
        let deadline = Instant::now() + timeout;
        let mut stream = UnixStream::connect(&self.socket)
            .map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let body = serde_json::to_vec(body).map_err(|e| failed(e.into()))?;
        let request = http::request(method, path, &body);
        stream.set_write_timeout(Some(timeout)).map_err(failed)?;
        stream.write_all(&request).map_err(failed)?;
        let bytes = receive(&mut stream, deadline).map_err(failed)?;
        let response = match http::Response::parse(&bytes) {
            Ok(response) => response,
            Err(http::HttpError::Incomplete) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Err(e) => return Err(ClientError::Answer { method, path, reason: e.to_string() }),
        };
        if (200..300).contains(&response.status) {
            return Ok(response.body);
        }
        Err(ClientError::Refused { status: response.status, text: refusal(&response) })
    }
}

/// Reads to the end: we asked the agent to close the connection.
fn receive(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
        // A server may keep the connection open all the same.
        if http::is_complete(&bytes) {
            return Ok(bytes);
        }
    }
}

/// A handler's error is a JSON string; a bad request's is an object with a message.
fn refusal(response: &http::Response) -> String {
    let text = match serde_json::from_slice(&response.body) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Object(object)) => {
            object.get("message").and_then(|m| m.as_str()).unwrap_or_default().to_owned()
        }
        _ => String::from_utf8_lossy(&response.body).trim().to_owned(),
    };
    if text.is_empty() { format!("the agent answered with status {}", response.status) } else { text }
}

#[cfg(test)]
mod tests;
