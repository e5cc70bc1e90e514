//! The unix socket: replaced in one step, so that a plugin finds the old one or the new one, never none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tokio::net::UnixListener;

/// The socket cannot be made.
#[derive(Debug, Error)]
#[error("unix socket {} cannot be made: {source}", path.display())]
pub(crate) struct SocketError {
    path: PathBuf,
    source: io::Error,
}

/// Listens at `path`, whatever was there before. Its folder is made if it is missing.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    replace(path).map_err(|source| SocketError { path: path.to_owned(), source })
}

fn replace(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // Bound under another name and renamed: the name is never missing, and is never one that nobody listens at.
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
        assert!(UnixStream::connect(&path).await.is_err(), "nobody listens at the stale socket");
        let listener = bind(&path).unwrap();
        let (client, server) = tokio::join!(UnixStream::connect(&path), listener.accept());
        client.unwrap();
        server.unwrap();
        assert_eq!(fs::read_dir(folder.path().join("run")).unwrap().count(), 1, "nothing is left beside");
    }

    #[tokio::test]
    async fn says_which_path_cannot_be_made() {
        let error = bind(Path::new("/proc/nowhere/agent.sock")).unwrap_err().to_string();
        assert!(error.contains("/proc/nowhere/agent.sock"), "{error}");
    }
}
