//! Why programs and maps are not as they should be.

use spiderpool_dataplane::{AttachError, LoadError, MapError};
use spiderpool_net::netlink::NetlinkError;
use thiserror::Error;

use crate::pod_network::NamespaceError;

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
