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
    #[error(
        "Multus' program {} is not there, and pods get no further NICs: agents bring it when they start (kubectl delete pod); \
         see that global.cniBinHostPath is where the container runtime looks, and that nobody removes it",
        .0.display()
    )]
    NoProgram(PathBuf),
    /// Multus could not ask the API server.
    #[error(
        "Multus has no access to the API server, and pods get no further NICs: the agent's log says why it gets no token; \
         `helm upgrade` makes its service account and rights again"
    )]
    NoAccess,
    /// A file cannot be read or written.
    #[error("Multus is not configured on this node, and pods get no further NICs: {}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl DirError {
    /// The reason of the Node's Event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Obstacle(Obstacle::OtherMultus { .. }) => "OtherMultus",
            Self::Obstacle(Obstacle::NoDefaultNetwork { .. }) => "NoDefaultNetwork",
            Self::Obstacle(Obstacle::Unreadable { .. }) => "DefaultNetworkUnreadable",
            Self::NoProgram(_) => "MultusProgramMissing",
            Self::NoAccess => "MultusNoAccess",
            Self::File { .. } => "MultusNotConfigured",
        }
    }
}

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> DirError {
    move |source| DirError::File { path: path.to_owned(), source }
}
