//! What is said to a machine's process 1: start this program, kill that one.
//!
//! One line of JSON per connection in each direction, over a socket in the machine's /run.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

/// The socket, in the machine.
pub const SOCKET: &str = "/run/testbox.sock";

/// Longer than process 1 waits for anything.
const LIMIT: Duration = Duration::from_mins(1);

/// A program that process 1 keeps running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    /// What it is called in requests, and its log file.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Beside process 1's own environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Where its output goes, appended.
    pub log: PathBuf,
}

/// A request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Starts a service and restarts it whenever it ends. One of that name is replaced.
    Start(Service),
    /// Ends a service for good: SIGTERM, and SIGKILL when it does not end in time.
    Stop(String),
    /// SIGKILL; the service is then restarted.
    Kill(String),
    /// SIGKILL, and the service is not restarted.
    Remove(String),
    /// Lists the services.
    Services,
}

/// A service as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its process id in the machine; none while it waits for its restart.
    pub process: Option<i32>,
    /// How often it was restarted.
    pub restarts: u32,
}

/// An answer: the services after the request, or why it failed.
pub type Answer = Result<Vec<Status>, String>;

/// Sends a request to the machine whose process 1 has this id here.
pub fn send(process: u32, request: &Request) -> Result<Vec<Status>> {
    let socket = format!("/proc/{process}/root{SOCKET}");
    let mut stream = UnixStream::connect(&socket).with_context(|| socket.clone())?;
    stream.set_read_timeout(Some(LIMIT))?;
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).with_context(|| socket.clone())?;
    let answer: Answer = serde_json::from_str(&line).with_context(|| format!("answer {line:?}"))?;
    answer.map_err(|error| anyhow!("{error}"))
}
