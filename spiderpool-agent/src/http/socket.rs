//! The unix socket, replaced atomically: a plugin finds the old one or the new one. Root alone is served: who asks
//! decides over the addresses and NICs of every pod of the node.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use nix::unistd::Uid;
use thiserror::Error;
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// The socket cannot be bound.
#[derive(Debug, Error)]
#[error("unix socket {} cannot be bound: {source}", path.display())]
pub(crate) struct SocketError {
    path: PathBuf,
    source: io::Error,
}

/// The socket, for root (and for the agent's own user, where a test runs it as another).
#[derive(Debug)]
pub(crate) struct RootSocket {
    listener: UnixListener,
    served: [Uid; 2],
}

impl Listener for RootSocket {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if self.served.contains(&Uid::from_raw(peer.uid())) => return (stream, address),
                Ok(peer) => {
                    warn!(uid = peer.uid(), pid = peer.pid(), "connection refused: its peer is not root");
                }
                Err(error) => warn!(%error, "connection refused: its peer cannot be told"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Listens at `path`, in place of whatever was there. Its folder is created if it is missing.
pub(crate) fn bind(path: &Path) -> Result<RootSocket, SocketError> {
    let listener = replace(path).map_err(|source| SocketError { path: path.to_owned(), source })?;
    Ok(RootSocket { listener, served: [Uid::from_raw(0), Uid::effective()] })
}

fn replace(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Bound elsewhere and renamed: the path always leads to a socket with a listener. In a folder that nobody else
    // enters: the socket listens before its permissions can be changed.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    remove(&beside)?;
    DirBuilder::new().mode(0o700).create(&beside)?;
    let new = beside.join("s");
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    if path.is_dir() {
        fs::remove_dir(path)?;
    }
    fs::rename(&new, path)?;
    fs::remove_dir(&beside)?;
    Ok(listener)
}

fn remove(beside: &Path) -> io::Result<()> {
    let removed = if beside.is_dir() { fs::remove_dir_all(beside) } else { fs::remove_file(beside) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn takes_the_place_of_a_stale_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        drop(bind(&path).unwrap());
        assert!(UnixStream::connect(&path).await.is_err(), "the stale socket has no listener");
        let mut listener = bind(&path).unwrap();
        let (client, server) = tokio::join!(UnixStream::connect(&path), listener.accept());
        client.unwrap();
        drop(server);
        assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 1, "nothing is left beside");
    }

    #[tokio::test]
    async fn only_its_owner_may_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let _listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    /// As one that root has opened and handed on, or that has the capability to pass over permissions.
    #[tokio::test]
    async fn a_peer_that_is_not_root_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let mut listener = bind(&path).unwrap();
        assert_eq!(listener.served, [Uid::from_raw(0), Uid::effective()]);
        // This test is the other one to a listener that somebody else has bound.
        let other = Uid::from_raw(Uid::effective().as_raw() + 1);
        listener.served = [other; 2];
        let mut refused = UnixStream::connect(&path).await.unwrap();
        let accepting = tokio::spawn(async move { listener.accept().await });
        let closed = tokio::time::timeout(Duration::from_secs(10), refused.read(&mut [0])).await;
        assert_eq!(closed.unwrap().unwrap(), 0, "it is closed");
        accepting.abort();
    }

    #[tokio::test]
    async fn an_error_names_the_path() {
        let error = bind(Path::new("/proc/nowhere/agent.sock")).unwrap_err().to_string();
        assert!(error.contains("/proc/nowhere/agent.sock"), "{error}");
    }
}
