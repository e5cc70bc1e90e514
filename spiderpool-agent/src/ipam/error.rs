//! Why a request to allocate or release fails, in words for the pod's events.

use std::sync::Arc;

use axum::http::StatusCode;
use spiderpool_core::ipam::IpamError;
use spiderpool_core::names::PoolName;
use thiserror::Error;

use spiderpool_runtime::kubernetes::Failure;

use crate::start::Starting;
use crate::watches::Unreadable;

/// Why a pod gets no answer to ADD.
#[derive(Debug, Error)]
pub enum AllocateError {
    /// The agent does not know enough yet.
    #[error(transparent)]
    Starting(#[from] Starting),
    /// The request names what is not a NIC.
    #[error("wrong input, {0}")]
    Request(String),
    /// The pod cannot be read.
    #[error("failed to get Pod {pod}: {source}")]
    ReadPod {
        /// namespace/name.
        pod: String,
        /// Why.
        source: Failure,
    },
    /// There is no such pod.
    #[error("failed to get Pod {0}: it does not exist")]
    NoPod(String),
    /// Another pod has the name now.
    #[error("Pod {pod} was replaced: the request is for UID {wanted}, the API server has UID {found}")]
    Replaced {
        /// namespace/name.
        pod: String,
        /// The request's.
        wanted: String,
        /// The API server's.
        found: String,
    },
    /// The pod is bound to another node.
    #[error("Pod {pod} is bound to node {found:?}, this is the agent of node {node}")]
    OtherNode {
        /// namespace/name.
        pod: String,
        /// The pod's.
        found: String,
        /// Ours.
        node: String,
    },
    /// A pool cannot be read.
    #[error("failed to get original IPPool {pool}: {source}")]
    ReadPool {
        /// The pool.
        pool: PoolName,
        /// Why.
        source: Arc<Failure>,
    },
    /// The workload above the pod cannot be read.
    #[error("failed to get pod '{pod}' owner: {source}")]
    Owner {
        /// namespace/name.
        pod: String,
        /// Why.
        source: Failure,
    },
    /// The pod is dead.
    #[error(transparent)]
    Dead(IpamError),
    /// No address is given.
    #[error("{}", list(.0))]
    Standard(Vec<IpamError>),
    /// The sandbox cannot be written into an address that the pod holds.
    #[error("failed to write container {container} into the pod's address {address}: {source}")]
    Adopt {
        /// The address.
        address: String,
        /// The sandbox.
        container: String,
        /// Why.
        source: Failure,
    },
    /// Addresses of the pod were taken away while it was being served.
    #[error("addresses of Pod {0} changed while it was being served: try again")]
    Restless(String),
    /// The caller is gone: nobody reads this.
    #[error("nobody waits for the addresses of Pod {0} any more")]
    Abandoned(String),
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
    /// A short word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Standard(errors) => errors.first().map_or("internal", IpamError::reason),
            Self::Dead(error) => error.reason(),
            _ => "internal",
        }
    }

    /// The answer's status: 503 tells the plugin that the same request may succeed later, without anybody's doing.
    pub fn status(&self) -> StatusCode {
        let later = match self {
            Self::Starting(_) | Self::Restless(_) => true,
            Self::ReadPod { source, .. } | Self::Owner { source, .. } | Self::Adopt { source, .. } => {
                source.is_retryable()
            }
            Self::ReadPool { source, .. } => source.is_retryable(),
            Self::Standard(errors) => errors.iter().any(IpamError::is_outage),
            _ => false,
        };
        if later { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR }
    }
}

/// Why a pod is not known.
#[derive(Debug, Error)]
pub enum PodError {
    /// There is none.
    #[error("it does not exist")]
    Missing,
    /// It cannot be read.
    #[error(transparent)]
    Unread(Failure),
}

impl PodError {
    /// The answer's status, as [`AllocateError::status`].
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unread(failure) if failure.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
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
    ReadPod {
        /// namespace/name.
        pod: String,
        /// Why.
        source: Failure,
    },
    /// An address cannot be freed.
    #[error("failed to release {address} of Pod {pod}: {source}")]
    Address {
        /// The address.
        address: String,
        /// namespace/name.
        pod: String,
        /// Why.
        source: Failure,
    },
    /// The endpoint cannot be removed.
    #[error("failed to remove SpiderEndpoint {pod}: {source}")]
    Endpoint {
        /// namespace/name.
        pod: String,
        /// Why.
        source: Failure,
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
        AllocateError::Standard(vec![IpamError::AllFailed {
            family: Family::V4,
            nic: "net1".parse().unwrap(),
            pools: vec!["p".parse().unwrap()],
            failures: vec![failure],
        }])
    }

    #[test]
    fn an_api_server_that_is_away_is_a_reason_to_try_later() {
        let silence = || Failure::Timeout(Duration::from_secs(10));
        let pool = "p".parse().unwrap();
        for error in [
            failed(PoolFailure::NoStore { pool, cause: silence().to_string() }),
            AllocateError::ReadPod { pod: "n/p".into(), source: silence() },
            AllocateError::Starting(Starting(vec!["watch of pools".into()])),
        ] {
            assert_eq!(error.status(), StatusCode::SERVICE_UNAVAILABLE, "{error}");
        }
    }

    #[test]
    fn a_pool_that_is_exhausted_is_not() {
        let pool = "p".parse().unwrap();
        let error = failed(PoolFailure::Exhausted { pool, usable: 3, reserved: 1 });
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            error.to_string(),
            "failed to allocate any IPv4 IP address to NIC net1 from IPPools [p]: all IP addresses used out of IPPool \
             p (3 usable, 1 of them reserved): add some to its spec.ips or name another one"
        );
    }
}
