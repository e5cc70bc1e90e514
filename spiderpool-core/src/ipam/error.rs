//! Why a pod gets no address. The texts reach the user in the pod's events, wrapped by every plugin on the way: one
//! line that names the pool and what to do. Tools look for their beginnings.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use super::PoolError;
use super::nic_network::{NetworkName, NetworkUnknown};
use super::pool::PoolConflict;
use super::pool_source::PoolSource;
use super::quarantine::ConflictError;
use super::reserved::ReservedError;
use crate::Unsupported;
use crate::error_list::ErrorList;
use crate::ip::Family;
use crate::label_selector::Requirement;
use crate::names::{IfName, PodName, PoolName};

/// The kind of a failure: what dashboards count and tools look at. The text is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureReason {
    /// The pod's annotations or the CNI configuration are wrong.
    WrongInput,
    /// Something is asked for that this version does not do.
    NotSupported,
    /// A subnet is named, and the feature is off.
    AutoPoolDisabled,
    /// No pool may serve the pod.
    NoAvailablePool,
    /// A pool is named that does not exist.
    PoolMissing,
    /// Every address of the pools is in use.
    AddressesUsedOut,
    /// The time was over before a free address was found.
    RetriesExhausted,
    /// The pod may not have addresses (any more).
    DeadPod,
    /// An earlier pod of the name still holds what is to be the pod's.
    EarlierPod,
    /// Somebody else uses the address on the wire.
    AddressConflict,
    /// The API server did not do what was asked of it.
    ApiServer,
    /// Anything else.
    Internal,
}

impl FailureReason {
    /// The value of a metric's label, and for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongInput => "wrong_input",
            Self::NotSupported => "not_supported",
            Self::AutoPoolDisabled => "auto_pool_disabled",
            Self::NoAvailablePool => "no_available_pool",
            Self::PoolMissing => "pool_missing",
            Self::AddressesUsedOut => "ip_used_out",
            Self::RetriesExhausted => "retries_exhausted",
            Self::DeadPod => "dead_pod",
            Self::EarlierPod => "earlier_pod",
            Self::AddressConflict => "address_conflict",
            Self::ApiServer => "api_server",
            Self::Internal => "internal",
        }
    }
}

/// Why no address is given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IpamError {
    /// An annotation of the pod does not parse, or contradicts itself.
    #[error("wrong input, invalid format of Pod annotation '{key}': {cause}")]
    Annotation {
        /// The annotation.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// An annotation of the pod's namespace does not parse.
    #[error("wrong input, invalid format of annotation '{key}' of Namespace {namespace}: {cause}")]
    NamespaceAnnotation {
        /// The namespace.
        namespace: String,
        /// The annotation.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// A pool's name in the CNI configuration is not one.
    #[error("wrong input, the CNI configuration of NIC {nic} names an IPPool: {cause}")]
    CniPools {
        /// The NIC.
        nic: IfName,
        /// What is wrong.
        cause: String,
    },
    /// A pool is listed twice.
    #[error("wrong input, duplicate IPPool {pool} specified for NIC {nic}")]
    DuplicatePool {
        /// The pool.
        pool: PoolName,
        /// The NIC.
        nic: IfName,
    },
    /// Subnet annotations without the feature that serves them.
    #[error(
        "it's invalid to use 'ipam.spidernet.io/subnets' or 'ipam.spidernet.io/subnet' annotation when Auto-Pool \
         feature is disabled"
    )]
    AutoPoolDisabled,
    /// A pool is made for a workload, and the pod has none.
    #[error(
        "SpiderSubnet feature doesn't support no-controller pod: name a pool for Pod {0} in its annotation \
         'ipam.spidernet.io/ippool', or have a workload make it"
    )]
    AutoPoolOfBarePod(PodName),
    /// The leader has not made the pool.
    #[error(
        "no IPPool available, no {family} IPPool has been made of SpiderSubnet {subnet} for {workload}, NIC {nic}: the Events of \
         both and the log of spiderpool-controller say why"
    )]
    AutoPoolMissing {
        /// The subnet.
        subnet: PoolName,
        /// The family.
        family: Family,
        /// The NIC that the pool is named after.
        nic: IfName,
        /// For whom it is made: kind, namespace and name.
        workload: String,
    },
    /// The subnet is not there, or does not serve.
    #[error(
        "no IPPool available, there is no valid {family} SpiderSubnet {subnet}, which is listed for NIC {nic} in the Pod annotation \
         'ipam.spidernet.io/subnets' or 'ipam.spidernet.io/subnet': create it, or list another one in the pod template"
    )]
    SubnetMissing {
        /// The subnet.
        subnet: PoolName,
        /// The family that is wanted of it.
        family: Family,
        /// The NIC that it is listed for.
        nic: IfName,
    },
    /// A SpiderSubnet is listed where pools are.
    #[error(
        "failed to get original IPPool {subnet} for NIC {nic}: it does not exist, but there is a SpiderSubnet of this name: name \
         it in the annotation 'ipam.spidernet.io/subnet' of the pod template, or name one of its IPPools"
    )]
    SubnetAsPool {
        /// The subnet.
        subnet: PoolName,
        /// The NIC.
        nic: IfName,
    },
    /// The request needs a feature that is not there yet.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Nobody names a pool, and no pool is a default one.
    #[error(
        "no IPPool available, no pool selection rules of any type are specified: name a pool in the Pod annotation \
         'ipam.spidernet.io/ippool' or in the CNI configuration, or set spec.default of a pool"
    )]
    NoSource,
    /// Pools are named, but for no enabled address family.
    #[error(
        "no IPPool available, no IPPool of an enabled address family is listed for NIC {nic} by {named_by}: list one, or \
         set enableIPv4 or enableIPv6 in the ConfigMap spiderpool-conf"
    )]
    NoPoolOfFamily {
        /// The source that was taken.
        named_by: PoolSource,
        /// The NIC.
        nic: IfName,
    },
    /// Nothing has a name as the source gives it.
    #[error(
        "no IPPool available, no {family} IPPool has a name like [{}], which is listed for NIC {nic} by {named_by}: create one, \
         or list another one",
        wildcards.join(" ")
    )]
    NoPoolMatches {
        /// The source that was taken.
        named_by: PoolSource,
        /// The family.
        family: Family,
        /// The NIC.
        nic: IfName,
        /// The wildcards.
        wildcards: Vec<String>,
    },
    /// A pool that is named does not exist.
    #[error(
        "failed to get original IPPool {pool}: it does not exist, but is named for NIC {nic}: create it or name another one"
    )]
    PoolMissing {
        /// The pool.
        pool: PoolName,
        /// The NIC.
        nic: IfName,
    },
    /// The pool of an address that the pod holds does not exist: nobody knows its gateway and routes.
    #[error(
        "failed to get original IPPool {pool}: it does not exist, but NIC {nic} holds its address {address}: create \
         it again, or delete the Pod"
    )]
    HeldPoolMissing {
        /// The pool.
        pool: PoolName,
        /// The NIC.
        nic: IfName,
        /// The address.
        address: IpNet,
    },
    /// The spec of that pool does not make sense.
    #[error("{error}: NIC {nic} holds its address {address}")]
    HeldPoolInvalid {
        /// What is wrong with it.
        error: Arc<PoolError>,
        /// The NIC.
        nic: IfName,
        /// The address.
        address: IpNet,
    },
    /// No pool of a family remains for a NIC.
    #[error(
        "no IPPool available, all {family} IPPools [{}] of {nic} filtered out: {}",
        spaced(pools),
        ErrorList(rejections)
    )]
    AllFiltered {
        /// The family.
        family: Family,
        /// The NIC.
        nic: IfName,
        /// The candidates.
        pools: Vec<PoolName>,
        /// Why each of them is out.
        rejections: Vec<Rejection>,
    },
    /// Every pool that remained for a NIC and family failed.
    #[error(
        "failed to allocate any {family} IP address to NIC {nic} from IPPools [{}]: {}",
        spaced(pools),
        ErrorList(failures)
    )]
    AllFailed {
        /// The family.
        family: Family,
        /// The NIC.
        nic: IfName,
        /// The pools that were tried.
        pools: Vec<PoolName>,
        /// How each of them failed.
        failures: Vec<PoolFailure>,
    },
    /// The runtime asks for an address that the NIC cannot have.
    #[error("the requested IP address {address} cannot be given to NIC {nic}: {cause}")]
    Requested {
        /// The address.
        address: IpAddr,
        /// The NIC.
        nic: IfName,
        /// Why not.
        cause: String,
    },
    /// Somebody else uses an address that the pod holds.
    #[error(transparent)]
    Conflict(#[from] ConflictError),
    /// The pod is finished, terminating or gone.
    #[error("dead Pod {0}, we cannot allocate IP addresees to it")]
    DeadPod(PodName),
}

impl IpamError {
    /// Its kind; of several pools that failed, that of the first.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Annotation { .. }
            | Self::NamespaceAnnotation { .. }
            | Self::CniPools { .. }
            | Self::DuplicatePool { .. }
            | Self::AutoPoolOfBarePod(_)
            | Self::Requested { .. } => FailureReason::WrongInput,
            Self::AutoPoolDisabled => FailureReason::AutoPoolDisabled,
            Self::Unsupported(_) => FailureReason::NotSupported,
            Self::NoSource
            | Self::NoPoolOfFamily { .. }
            | Self::NoPoolMatches { .. }
            | Self::HeldPoolInvalid { .. }
            | Self::AutoPoolMissing { .. }
            | Self::SubnetMissing { .. }
            | Self::AllFiltered { .. } => FailureReason::NoAvailablePool,
            Self::PoolMissing { .. } | Self::SubnetAsPool { .. } | Self::HeldPoolMissing { .. } => {
                FailureReason::PoolMissing
            }
            Self::AllFailed { failures, .. } => {
                failures.first().map_or(FailureReason::NoAvailablePool, PoolFailure::reason)
            }
            Self::Conflict(_) => FailureReason::AddressConflict,
            Self::DeadPod(_) => FailureReason::DeadPod,
        }
    }

    /// Why each pool gave nothing, without the list of all of them that comes first in the whole text: an Event has room for a
    /// thousand characters.
    pub fn causes(&self) -> String {
        match self {
            Self::AllFiltered { rejections, .. } => ErrorList(rejections).to_string(),
            Self::AllFailed { failures, .. } => ErrorList(failures).to_string(),
            other => other.to_string(),
        }
    }

    /// Whether nothing was wrong but that every address is in use.
    pub fn is_used_out(&self) -> bool {
        let is_used_out = |failure: &PoolFailure| matches!(failure, PoolFailure::Exhausted { .. });
        matches!(self, Self::AllFailed { failures, .. } if failures.iter().all(is_used_out))
    }

    /// Whether the same request may succeed later without anybody's doing: the API server is away or too busy.
    pub fn is_retryable(&self) -> bool {
        let is_retryable = |failure: &PoolFailure| matches!(failure, PoolFailure::Unavailable { .. });
        matches!(self, Self::AllFailed { failures, .. } if failures.iter().any(is_retryable))
    }
}

/// Why a pool does not serve a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The pool is being deleted.
    #[error("terminating IPPool {0}: name another one")]
    Terminating(PoolName),
    /// `spec.disable`.
    #[error("disabled IPPool {0}: set its spec.disable to false or name another one")]
    Disabled(PoolName),
    /// The pool is of the other family.
    #[error("expect an {expected} IPPool, but the version of the IPPool {pool} is {found}: name another one")]
    Family {
        /// The pool.
        pool: PoolName,
        /// The family wanted.
        expected: Family,
        /// The pool's.
        found: Family,
    },
    /// `spec.nodeName` does not list the pod's node.
    #[error("unmatched Node name of IPPool {pool}: its spec.nodeName does not list {node}")]
    NodeName {
        /// The pool.
        pool: PoolName,
        /// The pod's.
        node: String,
    },
    /// `spec.namespaceName` does not list the pod's namespace.
    #[error("unmatched Namespace name of IPPool {pool}: its spec.namespaceName does not list {namespace}")]
    NamespaceName {
        /// The pool.
        pool: PoolName,
        /// The pod's.
        namespace: String,
    },
    /// `spec.nodeAffinity` does not select the pod's node.
    #[error(
        "unmatched Node affinity of IPPool {pool}: its spec.nodeAffinity wants {unmet}, which Node {node} does not meet"
    )]
    NodeAffinity {
        /// The pool.
        pool: PoolName,
        /// The pod's.
        node: String,
        /// The first requirement that is not met.
        unmet: Requirement,
    },
    /// It selects nodes by labels, and there is no such Node.
    #[error("unmatched Node affinity of IPPool {pool}: there is no Node {node}")]
    NodeMissing {
        /// The pool.
        pool: PoolName,
        /// The pod's.
        node: String,
    },
    /// `spec.namespaceAffinity` does not select the pod's namespace.
    #[error(
        "unmatched Namespace affinity of IPPool {pool}: its spec.namespaceAffinity wants {unmet}, which Namespace \
         {namespace} does not meet"
    )]
    NamespaceAffinity {
        /// The pool.
        pool: PoolName,
        /// The pod's.
        namespace: String,
        /// The first requirement that is not met.
        unmet: Requirement,
    },
    /// `spec.podAffinity` does not select the pod.
    #[error(
        "unmatched Pod affinity of IPPool {pool}: its spec.podAffinity wants {unmet}, which the Pod does not meet"
    )]
    PodAffinity {
        /// The pool.
        pool: PoolName,
        /// The first requirement that is not met.
        unmet: Requirement,
    },
    /// `spec.multusName` does not list the NIC's network.
    #[error(
        "the spec.multusName [{}] in the IPPool {pool} used by the Pod interface {nic} is not matched with the multusCR \
         {network} specified by the Pod: add it there, or name another IPPool",
        multus_names.join(" ")
    )]
    MultusName {
        /// The pool.
        pool: PoolName,
        /// What it lists.
        multus_names: Vec<String>,
        /// The NIC.
        nic: IfName,
        /// Its network.
        network: NetworkName,
    },
    /// It lists networks, and that of the NIC is not known.
    #[error("{cause}; IPPool {pool} is for the networks [{}] of its spec.multusName", multus_names.join(" "))]
    NetworkUnknown {
        /// The pool.
        pool: PoolName,
        /// What it lists.
        multus_names: Vec<String>,
        /// Why not.
        cause: NetworkUnknown,
    },
    /// The pool's spec does not make sense.
    #[error(transparent)]
    Invalid(Arc<PoolError>),
    /// Some of its addresses are somebody else's.
    #[error("{0}: {remedy}, or name another one", remedy = .0.remedy())]
    Conflict(PoolConflict),
}

/// Why one pool gave no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolFailure {
    /// Nothing is free.
    #[error(
        "all IP addresses used out of IPPool {pool} ({usable} usable, {reserved} of them reserved{}): add some to its \
         spec.ips or name another one",
        quarantine(*quarantined)
    )]
    Exhausted {
        /// The pool.
        pool: PoolName,
        /// `ips` without `excludeIPs`.
        usable: u128,
        /// Taken out by SpiderReservedIPs.
        reserved: u128,
        /// Nobody gets these for a while: others were seen using them.
        quarantined: u128,
    },
    /// The time was over before a free address was found.
    #[error(
        "exhaust all retries ({tries} times), failed to allocate IP from IPPool {pool}: other Pods were faster"
    )]
    Retries {
        /// The pool.
        pool: PoolName,
        /// How many addresses were tried.
        tries: u32,
    },
    /// It is not known which addresses are reserved.
    #[error(transparent)]
    Reserved(Arc<ReservedError>),
    /// The API server refused.
    #[error("failed to write an address of IPPool {pool}: {cause}")]
    Refused {
        /// The pool.
        pool: PoolName,
        /// What it said.
        cause: String,
    },
    /// The API server did not answer, or is too busy.
    #[error("failed to write an address of IPPool {pool}: {cause}")]
    Unavailable {
        /// The pool.
        pool: PoolName,
        /// What is known of it.
        cause: String,
    },
}

impl PoolFailure {
    /// Its kind.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Exhausted { .. } => FailureReason::AddressesUsedOut,
            Self::Reserved(_) => FailureReason::NoAvailablePool,
            Self::Retries { .. } => FailureReason::RetriesExhausted,
            Self::Refused { .. } | Self::Unavailable { .. } => FailureReason::ApiServer,
        }
    }
}

/// Where some are: how to see who uses them.
fn quarantine(count: u128) -> String {
    match count {
        0 => String::new(),
        count => format!(
            ", {count} quarantined because others use them on the network: kubectl get sip -l \
             ipam.spidernet.io/quarantined=true -o yaml"
        ),
    }
}

fn spaced(names: &[PoolName]) -> String {
    names.iter().map(PoolName::as_str).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(names: &[&str]) -> Vec<PoolName> {
        names.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn exhausted(pool: &str) -> PoolFailure {
        PoolFailure::Exhausted { pool: pool.parse().unwrap(), usable: 3, reserved: 1, quarantined: 0 }
    }

    /// What tools and upstream's own tests look for.
    #[test]
    fn texts_start_as_upstreams() {
        let failed = IpamError::AllFailed {
            family: Family::V4,
            nic: "eth0".parse().unwrap(),
            pools: pools(&["p1", "p2"]),
            failures: vec![exhausted("p1"), exhausted("p2"), exhausted("p2")],
        };
        assert_eq!(
            failed.to_string(),
            "failed to allocate any IPv4 IP address to NIC eth0 from IPPools [p1 p2]: [all IP addresses used out of \
             IPPool p1 (3 usable, 1 of them reserved): add some to its spec.ips or name another one, all IP addresses \
             used out of IPPool p2 (3 usable, 1 of them reserved): add some to its spec.ips or name another one]"
        );
        assert_eq!((failed.reason(), failed.is_retryable()), (FailureReason::AddressesUsedOut, false));
        let filtered = IpamError::AllFiltered {
            family: Family::V6,
            nic: "net1".parse().unwrap(),
            pools: pools(&["p6"]),
            rejections: vec![Rejection::NodeName { pool: "p6".parse().unwrap(), node: "n1".to_owned() }],
        };
        assert_eq!(
            filtered.to_string(),
            "no IPPool available, all IPv6 IPPools [p6] of net1 filtered out: unmatched Node name of IPPool p6: its \
             spec.nodeName does not list n1"
        );
        assert_eq!((filtered.reason(), filtered.is_retryable()), (FailureReason::NoAvailablePool, false));
        assert!(
            IpamError::NoSource
                .to_string()
                .starts_with("no IPPool available, no pool selection rules of any type are specified")
        );
    }

    /// Else nobody sees why so few pods use a pool up.
    #[test]
    fn a_pool_that_is_used_out_says_how_many_addresses_are_quarantined() {
        let pool = "p".parse().unwrap();
        let text = PoolFailure::Exhausted { pool, usable: 9, reserved: 1, quarantined: 4 }.to_string();
        assert!(text.contains("(9 usable, 1 of them reserved, 4 quarantined because others use"), "{text}");
    }

    #[test]
    fn a_pool_that_the_api_server_kept_from_being_tried_makes_the_failure_retryable() {
        let failed = IpamError::AllFailed {
            family: Family::V4,
            nic: "eth0".parse().unwrap(),
            pools: pools(&["p1", "p2"]),
            failures: vec![
                exhausted("p1"),
                PoolFailure::Unavailable { pool: "p2".parse().unwrap(), cause: "timeout".to_owned() },
            ],
        };
        assert!(failed.is_retryable());
    }
}
