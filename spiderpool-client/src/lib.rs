//! Client of the agent's HTTP API on its unix socket: typed requests and answers, blocking, one connection per request.
//!
//! For processes that live for milliseconds (CNI plugins) and for command-line tools: no async runtime, no TLS, no
//! connection pool.
#![forbid(unsafe_code)]

mod connect;
mod error;
mod http;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use spiderpool_api::agent::coordinator::{CoordinatorConfig, GetCoordinatorArgs};
use spiderpool_api::agent::dataplane::{Attachment, RegisterNics, RegisteredNics};
use spiderpool_api::agent::gc::GcArgs;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamAddResponse, IpamDelArgs};
use spiderpool_api::agent::path;

use connect::connect_within;
pub use error::ClientError;

/// For what a pod's start needs the agent to write to the API server; as upstream's.
const WRITE_TIMEOUT: Duration = Duration::from_secs(100);
/// For what the agent answers from memory.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// For an answer that is always there.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// For what a pod's end asks for: what is not done then, the agent does later. Together below 15 s.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(3);

/// The agent of this node.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// One operation of the API.
#[derive(Debug, Clone, Copy)]
struct Operation {
    method: &'static str,
    path: &'static str,
    /// From connecting to the last byte of the answer.
    timeout: Duration,
}

impl Client {
    /// Connects by `socket` at each request.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Succeeds if the agent answers.
    pub fn healthy(&self) -> Result<(), ClientError> {
        let operation = Operation { method: "GET", path: path::HEALTHY, timeout: HEALTH_TIMEOUT };
        self.exchange(operation, &()).map(drop)
    }

    /// Allocates addresses, within what is left of the caller's time.
    pub fn allocate(&self, args: &IpamAddArgs, left: Duration) -> Result<IpamAddResponse, ClientError> {
        self.request(Operation { method: "POST", path: path::IP, timeout: left.min(WRITE_TIMEOUT) }, args)
    }

    /// Releases a NIC's addresses.
    pub fn release(&self, args: &IpamDelArgs) -> Result<(), ClientError> {
        let operation = Operation { method: "DELETE", path: path::IP, timeout: RELEASE_TIMEOUT };
        self.exchange(operation, args).map(drop)
    }

    /// Frees the addresses of attachments that are not valid any more.
    pub fn collect_addresses(&self, args: &GcArgs) -> Result<(), ClientError> {
        let operation = Operation { method: "POST", path: path::IPAM_GC, timeout: WRITE_TIMEOUT };
        self.exchange(operation, args).map(drop)
    }

    /// SpiderCoordinator's settings for a pod.
    pub fn coordinator_config(&self, args: &GetCoordinatorArgs) -> Result<CoordinatorConfig, ClientError> {
        self.request(Operation { method: "GET", path: path::COORDINATOR_CONFIG, timeout: READ_TIMEOUT }, args)
    }

    /// Registers a pod's NICs with the dataplane.
    pub fn register_nics(&self, nics: &RegisterNics) -> Result<RegisteredNics, ClientError> {
        self.request(Operation { method: "PUT", path: path::DATAPLANE_NICS, timeout: READ_TIMEOUT }, nics)
    }

    /// Takes an attachment out of the dataplane.
    pub fn unregister_nics(&self, attachment: &Attachment) -> Result<(), ClientError> {
        let operation =
            Operation { method: "DELETE", path: path::DATAPLANE_NICS, timeout: UNREGISTER_TIMEOUT };
        self.exchange(operation, attachment).map(drop)
    }

    /// Takes attachments out of the dataplane that are not valid any more.
    pub fn collect_nics(&self, args: &GcArgs) -> Result<(), ClientError> {
        let operation = Operation { method: "POST", path: path::DATAPLANE_GC, timeout: READ_TIMEOUT };
        self.exchange(operation, args).map(drop)
    }

    fn request<T: DeserializeOwned>(
        &self,
        operation: Operation,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let answer = self.exchange(operation, body)?;
        serde_json::from_slice(&answer).map_err(|error| operation.bad_answer(error.to_string()))
    }

    /// The body of an answer with a status of success.
    fn exchange(&self, operation: Operation, body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
        let deadline = Instant::now() + operation.timeout;
        let connected = time_left(deadline).and_then(|left| connect_within(&self.socket, left));
        let mut stream =
            connected.map_err(|source| ClientError::Unreachable { socket: self.socket.clone(), source })?;
        let failed = |source| operation.failed(source);
        let body = serde_json::to_vec(body).map_err(|error| failed(error.into()))?;
        let request = http::request(operation.method, operation.path, &body);
        stream.set_write_timeout(Some(time_left(deadline).map_err(failed)?)).map_err(failed)?;
        stream.write_all(&request).map_err(failed)?;
        let bytes = receive(&mut stream, deadline).map_err(failed)?;
        let response = match http::Response::parse(&bytes) {
            Ok(response) => response,
            Err(http::HttpError::Incomplete) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(operation.bad_answer(error.to_string())),
        };
        if (200..300).contains(&response.status) {
            return Ok(response.body);
        }
        Err(ClientError::Refused { status: response.status, text: refusal(&response) })
    }
}

impl Operation {
    fn failed(self, source: io::Error) -> ClientError {
        ClientError::Io { method: self.method, path: self.path, source }
    }

    fn bad_answer(self, cause: String) -> ClientError {
        ClientError::Answer { method: self.method, path: self.path, cause }
    }
}

/// Never zero, which would mean without a limit.
fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads to the end: the request asks the agent to close the connection.
fn receive(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    let mut chunk = [0; 4096];
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
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
