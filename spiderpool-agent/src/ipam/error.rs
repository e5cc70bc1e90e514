//! Why a request to allocate or release fails, in words for the pod's events.

use std::sync::Arc;

use axum::http::StatusCode;
use ipnet::IpNet;
use spiderpool_core::ipam::{FailureReason, Holding, IpamError, virtual_machine};
use spiderpool_core::names::{ContainerId, NameError, NodeName, PodName, PodUid, PoolName};
use spiderpool_runtime::kubernetes::ApiFailure;
use thiserror::Error;

use super::allocator::MigrationError;
use crate::start::Starting;
use crate::watches::Unreadable;

/// Why a pod gets no answer to ADD.
#[derive(Debug, Error)]
pub enum AllocateError {
    /// The agent does not know enough yet.
    #[error(transparent)]
    Starting(#[from] Starting),
    /// The pod is not known.
    #[error("failed to get Pod {pod}: {source}")]
    Pod {
        /// The pod.
        pod: PodName,
        /// Why.
        source: PodError,
    },
    /// Another pod has the name now.
    #[error("Pod {pod} was replaced: the request is for UID {wanted}, the API server has UID {found}")]
    Replaced {
        /// The pod.
        pod: PodName,
        /// The request's.
        wanted: PodUid,
        /// The API server's.
        found: PodUid,
    },
    /// The pod is bound to another node.
    #[error(
        "Pod {pod} is bound to node {:?}, this is the agent of node {node}",
        found.as_ref().map_or("", NodeName::as_str)
    )]
    OtherNode {
        /// The pod.
        pod: PodName,
        /// The pod's, if it is bound at all.
        found: Option<NodeName>,
        /// Ours.
        node: NodeName,
    },
    /// A pool cannot be read.
    #[error("failed to get original IPPool {pool}: {source}")]
    ReadPool {
        /// The pool.
        pool: PoolName,
        /// Why.
        source: Arc<ApiFailure>,
    },
    /// The pod's namespace, which may choose pools, cannot be read.
    #[error("failed to get Namespace {namespace}: {source}")]
    ReadNamespace {
        /// The namespace.
        namespace: String,
        /// Why.
        source: ApiFailure,
    },
    /// The agent's node, by whose labels pools are chosen, cannot be read.
    #[error("failed to get Node {node}: {source}")]
    ReadNode {
        /// The node.
        node: NodeName,
        /// Why.
        source: ApiFailure,
    },
    /// The workload above the pod cannot be read.
    #[error("failed to get pod '{pod}' owner: {source}")]
    Owner {
        /// The pod.
        pod: PodName,
        /// Why.
        source: ApiFailure,
    },
    /// Whether the pod is the virtual machine's that it names is not known.
    #[error("failed to get VirtualMachineInstance {machine} of Pod {pod}: {source}{}", advice(source))]
    Machine {
        /// The pod.
        pod: PodName,
        /// The machine that it names.
        machine: String,
        /// Why.
        source: ApiFailure,
    },
    /// Whether something is kept for the pod is not known.
    #[error("failed to learn which addresses are kept for Pod {pod}: {source}{}", advice(source))]
    Predecessor {
        /// The pod.
        pod: PodName,
        /// Why.
        source: ApiFailure,
    },
    /// What the pod uses of its virtual machine cannot be written down.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// An address that is to become the pod's is not free of an earlier one.
    #[error(
        "{} is to be the Pod's, but {} (UID {}) may still use it on node {:?}: it is released when that Pod's network is \
         taken down there, or its node counts as dead",
        .0.address, earlier(.0), .0.owner.pod.uid, .0.node.as_ref().map_or("", NodeName::as_str)
    )]
    StillHeld(Box<Holding>),
    /// No address is given.
    #[error("{}", list(.0))]
    Ipam(Vec<IpamError>),
    /// The sandbox cannot be written into an address that the pod holds.
    #[error("failed to write container {container} into the pod's address {address}: {source}")]
    Adopt {
        /// The address.
        address: IpNet,
        /// The sandbox.
        container: ContainerId,
        /// Why.
        source: ApiFailure,
    },
    /// An address that somebody else uses cannot be taken from the pod.
    #[error("failed to quarantine {address}, which somebody else uses: {source}")]
    Quarantine {
        /// The address.
        address: IpNet,
        /// Why.
        source: ApiFailure,
    },
    /// Addresses of the pod were taken away while it was being served.
    #[error("addresses of Pod {0} changed while it was being served: try again")]
    Contended(PodName),
    /// The caller is gone: nobody reads this.
    #[error("nobody waits for the addresses of Pod {0} any more")]
    Abandoned(PodName),
    /// The work ended without an answer.
    #[error("spiderpool-agent failed while it served the request: see its log")]
    Broken,
}

impl From<Unreadable> for AllocateError {
    fn from(Unreadable { pool, failure }: Unreadable) -> Self {
        Self::ReadPool { pool, source: failure }
    }
}

impl AllocateError {
    /// The text for an Event: reasons before names.
    pub fn causes(&self) -> String {
        match self {
            Self::Ipam(errors) => errors.iter().map(IpamError::causes).collect::<Vec<_>>().join("; "),
            other => other.to_string(),
        }
    }

    /// Whether the pod's Events should say it: it is neither a matter of this moment nor of the caller.
    pub fn is_said(&self) -> bool {
        !matches!(
            self,
            Self::Starting(_) | Self::Contended(_) | Self::StillHeld(_) | Self::Abandoned(_) | Self::Broken
        )
    }

    /// Its kind, for metrics and logs.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Ipam(errors) => errors.first().map_or(FailureReason::Internal, IpamError::reason),
            Self::ReadPool { .. }
            | Self::ReadNamespace { .. }
            | Self::ReadNode { .. }
            | Self::Owner { .. }
            | Self::Machine { .. }
            | Self::Predecessor { .. }
            | Self::Quarantine { .. }
            | Self::Adopt { .. } => FailureReason::ApiServer,
            Self::Starting(_)
            | Self::Pod { .. }
            | Self::Replaced { .. }
            | Self::OtherNode { .. }
            | Self::Contended(_)
            | Self::Migration(_)
            | Self::Abandoned(_)
            | Self::Broken => FailureReason::Internal,
            Self::StillHeld(_) => FailureReason::EarlierPod,
        }
    }

    /// Whether the same request may succeed later, without anybody's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Starting(_) | Self::Contended(_) | Self::StillHeld(_) => true,
            Self::Pod { source, .. } => source.is_retryable(),
            Self::ReadPool { source, .. } => source.is_retryable(),
            Self::ReadNamespace { source, .. }
            | Self::ReadNode { source, .. }
            | Self::Owner { source, .. }
            | Self::Machine { source, .. }
            | Self::Predecessor { source, .. }
            | Self::Quarantine { source, .. }
            | Self::Adopt { source, .. } => source.is_retryable(),
            Self::Ipam(errors) => errors.iter().any(IpamError::is_retryable),
            Self::Replaced { .. }
            | Self::OtherNode { .. }
            | Self::Migration(_)
            | Self::Abandoned(_)
            | Self::Broken => false,
        }
    }

    /// The answer's status: from 503 the plugin makes CNI's code 11, "try again later".
    pub fn status(&self) -> StatusCode {
        status(self.is_retryable())
    }
}

fn status(is_retryable: bool) -> StatusCode {
    if is_retryable { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// Why a pod is not known.
#[derive(Debug, Error)]
pub enum PodError {
    /// There is none.
    #[error("it does not exist")]
    Missing,
    /// It cannot be read.
    #[error(transparent)]
    Unread(ApiFailure),
    /// It is there, and makes no sense.
    #[error(transparent)]
    Unreadable(#[from] NameError),
}

impl PodError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unread(failure) if failure.is_retryable())
    }

    /// The answer's status, as [`AllocateError::status`].
    pub fn status(&self) -> StatusCode {
        status(self.is_retryable())
    }
}

/// What to do about a right on virtual machines that is missing; nothing about other failures.
fn advice(failure: &ApiFailure) -> &'static str {
    if failure.is_forbidden_in(virtual_machine::GROUP) {
        ": give spiderpool-agent this right, as the chart does, or set ipam.enableKubevirtStaticIP to false if virtual \
         machines are not to keep their addresses"
    } else {
        ""
    }
}

/// Which pod of before holds an address.
fn earlier(holding: &Holding) -> String {
    match &holding.owner.virtual_machine {
        Some(machine) => format!("Pod {} of its VirtualMachineInstance {machine}", holding.owner.pod.name),
        None => "its earlier Pod of the same name".to_owned(),
    }
}

/// Several causes as `[a, b]`, one as itself.
fn list(errors: &[IpamError]) -> String {
    match errors {
        [one] => one.to_string(),
        several => format!("[{}]", several.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// Why addresses are not released now.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// The agent does not know enough yet.
    #[error(transparent)]
    Starting(#[from] Starting),
    /// The pod cannot be read, so nobody knows whether it is alive.
    #[error("failed to get Pod {pod}: {source}")]
    Pod {
        /// The pod.
        pod: PodName,
        /// Why.
        source: PodError,
    },
    /// The workload above the pod cannot be read.
    #[error("failed to get pod '{pod}' owner: {source}")]
    Owner {
        /// The pod.
        pod: PodName,
        /// Why.
        source: ApiFailure,
    },
    /// Whether another pod of the name will come is not known.
    #[error("failed to learn whether another Pod comes after Pod {pod}: {source}{}", advice(source))]
    Successor {
        /// The pod.
        pod: PodName,
        /// Why.
        source: ApiFailure,
    },
    /// An earlier request for an address of the pod has no known outcome.
    #[error("failed to learn whether an address belongs to Pod {pod}: {source}")]
    Pending {
        /// The pod.
        pod: PodName,
        /// Why.
        source: ApiFailure,
    },
    /// An address cannot be freed.
    #[error("failed to release {address} of Pod {pod}: {source}")]
    Address {
        /// The address.
        address: IpNet,
        /// The pod.
        pod: PodName,
        /// Why.
        source: ApiFailure,
    },
    /// The endpoint cannot be removed.
    #[error("failed to remove SpiderEndpoint {pod}: {source}")]
    Endpoint {
        /// The pod.
        pod: PodName,
        /// Why.
        source: ApiFailure,
    },
    /// The configuration forbids it.
    #[error("forbid releasing IPs for stateless workload")]
    Stateless,
    /// The workload keeps its addresses.
    #[error("forbid releasing IPs for stateful workload ")]
    Stateful,
    /// The work ended without an answer.
    #[error("spiderpool-agent failed while it served the request: see its log")]
    Broken,
}

impl ReleaseError {
    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        let code = match self {
            Self::Stateless => 521,
            Self::Stateful => 522,
            _ => 500,
        };
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spiderpool_core::ip::Family;
    use spiderpool_core::ipam::PoolFailure;

    use super::*;

    fn failed(failure: PoolFailure) -> AllocateError {
        AllocateError::Ipam(vec![IpamError::AllFailed {
            family: Family::V4,
            nic: "net1".parse().unwrap(),
            pools: vec!["p".parse().unwrap()],
            failures: vec![failure],
        }])
    }

    #[test]
    fn an_api_server_that_is_away_is_a_reason_to_try_later() {
        let timeout = || ApiFailure::Timeout(Duration::from_secs(10));
        let pool = "p".parse().unwrap();
        for error in [
            failed(PoolFailure::Unavailable { pool, cause: timeout().to_string() }),
            AllocateError::Pod { pod: PodName::new("n", "p").unwrap(), source: PodError::Unread(timeout()) },
            AllocateError::Starting(Starting(vec!["watch of pools".into()])),
        ] {
            assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE, "{error}");
        }
    }

    #[test]
    fn an_exhausted_pool_is_not_retryable() {
        let pool = "p".parse().unwrap();
        let error = failed(PoolFailure::Exhausted { pool, usable: 3, reserved: 1, quarantined: 0 });
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            error.to_string(),
            "failed to allocate any IPv4 IP address to NIC net1 from IPPools [p]: all IP addresses used out of IPPool \
             p (3 usable, 1 of them reserved): add some to its spec.ips or name another one"
        );
    }
}
