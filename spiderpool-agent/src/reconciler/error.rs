//! Why a registration is refused.

use std::net::IpAddr;
use std::sync::Arc;

use spiderpool_core::names::IfName;
use spiderpool_net::netns::NetNsError;
use thiserror::Error;

use crate::dataplane::{DataplaneError, NotLoaded, TooManyNics};
use crate::pod_network::{InventoryError, StateFileError};

/// Why NICs are not registered or unregistered.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// Programs and maps are not loaded.
    #[error(transparent)]
    NotLoaded(#[from] NotLoaded),
    /// The agent does not know yet what to steer.
    #[error("eBPF dataplane cannot serve the pod yet: no SpiderCoordinator is Synced")]
    NoCluster,
    /// What the pod sends for its own address would be the node's, and the other way round.
    #[error(
        "{nic} of the pod has the address {address}, which is one of the node's own: give the pod another one"
    )]
    NodeAddress {
        /// The pod's NIC.
        nic: IfName,
        /// The address.
        address: IpAddr,
    },
    /// The agent is shutting down.
    #[error("eBPF dataplane is shutting down")]
    Stopped,
    /// The pod's namespace is not there.
    #[error(transparent)]
    Netns(#[from] NetNsError),
    /// The registration makes no sense or does not fit.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The pod has too many NICs.
    #[error(transparent)]
    TooManyNics(#[from] TooManyNics),
    /// The inventory cannot be read or written.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The maps cannot be written.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// What several removals have ended with, which were done at once.
    #[error(transparent)]
    Removal(Arc<RegistrationError>),
}
