//! Why a pod is not reconciled yet.

use std::net::IpAddr;

use spiderpool_core::names::NameError;
use spiderpool_runtime::kubernetes::ApiFailure;
use thiserror::Error;

/// Why a pod's addresses were not freed or its endpoint not written.
#[derive(Debug, Error)]
pub(crate) enum ReconcileError {
    /// Whether the pod is alive is unknown.
    #[error("failed to get Pod {pod}: {source}")]
    ReadPod {
        /// namespace/name.
        pod: String,
        /// Why.
        source: ApiFailure,
    },
    /// The pod's names are invalid.
    #[error("Pod {pod} is unreadable and keeps what it holds: {source}")]
    UnreadablePod {
        /// namespace/name.
        pod: String,
        /// Why.
        source: NameError,
    },
    /// Whether the node is ready is unknown.
    #[error("failed to get Node {node}: {source}")]
    ReadNode {
        /// Its name.
        node: String,
        /// Why.
        source: ApiFailure,
    },
    /// Whether another pod will come that is to have the addresses is unknown.
    #[error("failed to learn whether another Pod comes after Pod {pod}: {source}")]
    ReadSuccessor {
        /// namespace/name.
        pod: String,
        /// Why.
        source: ApiFailure,
    },
    /// The endpoint cannot be written or removed.
    #[error("SpiderEndpoint {pod}: {source}")]
    Endpoint {
        /// namespace/name.
        pod: String,
        /// Why.
        source: ApiFailure,
    },
    /// An address cannot be freed.
    #[error("failed to free {address} of Pod {pod}: {source}")]
    Address {
        /// The address.
        address: IpAddr,
        /// namespace/name.
        pod: String,
        /// Why.
        source: ApiFailure,
    },
    /// An address cannot be given to the pod that its virtual machine has moved to.
    #[error("failed to hand {address} over to Pod {pod}: {source}")]
    HandOver {
        /// The address.
        address: IpAddr,
        /// namespace/name.
        pod: String,
        /// Why.
        source: ApiFailure,
    },
    /// A lost address object cannot be written again.
    #[error("failed to write SpiderIPAddress {address} of Pod {pod} again: {source}")]
    Restore {
        /// The address.
        address: IpAddr,
        /// namespace/name.
        pod: String,
        /// Why.
        source: ApiFailure,
    },
    /// The address was written after it was read.
    #[error("{address} of Pod {pod} has just changed")]
    Changed {
        /// The address.
        address: IpAddr,
        /// namespace/name.
        pod: String,
    },
}

impl ReconcileError {
    /// The reason, as logs have it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::ReadPod { .. } | Self::UnreadablePod { .. } => "ReadPodFailed",
            Self::ReadNode { .. } => "ReadNodeFailed",
            Self::ReadSuccessor { .. } => "ReadSuccessorFailed",
            Self::Endpoint { .. } => "EndpointFailed",
            Self::Address { .. } => "FreeFailed",
            Self::HandOver { .. } => "HandOverFailed",
            Self::Restore { .. } => "RestoreFailed",
            Self::Changed { .. } => "Conflict",
        }
    }

    /// Whether an object has changed since it was read: no failure, only a reason to reconcile again.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }
}
