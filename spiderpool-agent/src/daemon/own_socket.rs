//! Probes the agent's own socket in the way the plugins use it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spiderpool_api::agent::path;
use spiderpool_runtime::health::Condition;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often the socket is probed.
const PERIOD: Duration = Duration::from_secs(5);
/// How long a response may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Probes until shutdown.
pub(super) async fn watch(socket: PathBuf, reachable: Condition, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
        let outcome = tokio::time::timeout(TIMEOUT, probe(&socket)).await;
        match outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => reachable.met(),
            Err(error) => {
                warn!(socket = %socket.display(), %error, "probe of the own socket failed");
                reachable.unmet(format!("{}: {error}", socket.display()));
            }
        }
    }
}

async fn probe(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("GET {} HTTP/1.0\r\nHost: agent\r\n\r\n", path::HEALTHY).as_bytes()).await?;
    let mut response = Vec::new();
    stream.take(1024).read_to_end(&mut response).await?;
    let line = String::from_utf8_lossy(&response);
    let line = line.lines().next().unwrap_or_default();
    if line.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(io::Error::other(format!("unexpected response {line:?}")))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn answer(listener: &UnixListener, answer: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn only_status_200_counts_as_reachable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        assert_eq!(probe(&path).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        let good = "HTTP/1.0 200 OK\r\n\r\n";
        tokio::join!(answer(&listener, good), probe(&path)).1.unwrap();
        let bad = tokio::join!(answer(&listener, "HTTP/1.0 500 no\r\n\r\n"), probe(&path)).1.unwrap_err();
        assert!(bad.to_string().contains("500"), "{bad}");
        drop(listener);
        assert_eq!(probe(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
