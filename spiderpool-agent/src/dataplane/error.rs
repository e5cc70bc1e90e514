//! Why programs and maps are not as they should be.

use spiderpool_dataplane::{AttachError, LoadError, MapError};
use spiderpool_net::netlink::NetlinkError;
use thiserror::Error;

use crate::pod_network::NamespaceError;

impl DataplaneError {
    /// The pod has more filters than may be read.
    pub(crate) fn is_too_large(&self) -> bool {
        match self {
            Self::Namespace(error) => error.is_too_large(),
            Self::Attach(AttachError::Netlink(error)) | Self::Netlink(error) => {
                matches!(error, NetlinkError::TooMany { .. })
            }
            Self::Load(_) | Self::Map(_) | Self::Attach(_) => false,
        }
    }
}

/// Programs and maps cannot be loaded, written or attached.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// Programs and maps cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map cannot be read or written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The pod's namespace cannot be read.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// Programs cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// A NIC cannot be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
