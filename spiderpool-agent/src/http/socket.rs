//! The unix socket, replaced atomically: a plugin finds the old one or the new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;

/// The socket cannot be bound.
#[derive(Debug, Error)]
#[error("unix socket {} cannot be bound: {source}", path.display())]
pub(crate) struct SocketError {
    path: PathBuf,
    source: io::Error,
}

/// Listens at `path`, in place of whatever was there. Its folder is created if it is missing.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    replace(path).map_err(|source| SocketError { path: path.to_owned(), source })
}

fn replace(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Bound under another name and renamed: the path always leads to a socket with a listener.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    remove(&beside)?;
    let listener = UnixListener::bind(&beside)?;
    if path.is_dir() {
        fs::remove_dir(path)?;
    }
    fs::rename(&beside, path)?;
    Ok(listener)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn takes_the_place_of_a_stale_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/agent.sock");
        drop(bind(&path).unwrap());
        assert!(UnixStream::connect(&path).await.is_err(), "the stale socket has no listener");
        let listener = bind(&path).unwrap();
        let (client, server) = tokio::join!(UnixStream::connect(&path), listener.accept());
        client.unwrap();
        server.unwrap();
        assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 1, "nothing is left beside");
    }

    #[tokio::test]
    async fn an_error_names_the_path() {
        let error = bind(Path::new("/proc/nowhere/agent.sock")).unwrap_err().to_string();
        assert!(error.contains("/proc/nowhere/agent.sock"), "{error}");
    }
}
