//! An agent that answers at once, so that what is measured is the plugin alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use anyhow::Result;

/// The address that every request gets.
const ANSWER: &str = r#"{"ips":[{"version":4,"address":"10.6.212.145/16","nic":"lo","ipPool":"bench","gateway":"10.6.0.1"}],"routes":[{"ifName":"lo","dst":"0.0.0.0/0","gw":"10.6.0.1"}]}"#;

/// Serves on `socket` until the process ends.
pub(crate) fn serve(socket: &Path) -> Result<()> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // A plugin that hangs up is what every call ends with.
                drop(answer(stream));
            });
        }
    });
    Ok(())
}

/// Answers every request on one connection.
fn answer(stream: UnixStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        let body = if first.starts_with("POST") { ANSWER } else { "" };
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
    }
}
