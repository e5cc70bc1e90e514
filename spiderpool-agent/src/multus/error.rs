//! Why Multus' files are not as they must be.

use std::io;
use std::path::{Path, PathBuf};

use spiderpool_core::multus_conf::Obstacle;
use thiserror::Error;

/// Multus' files cannot be written.
#[derive(Debug, Error)]
pub(crate) enum DirError {
    /// What is in the directory does not allow it.
    #[error(transparent)]
    Obstacle(#[from] Obstacle),
    /// Nobody could execute the plugin.
    #[error("{} is not there yet", .0.display())]
    NoProgram(PathBuf),
    /// Multus could not ask the API server.
    #[error("Multus has no access to the API server yet")]
    NoAccess,
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> DirError {
    move |source| DirError::File { path: path.to_owned(), source }
}
