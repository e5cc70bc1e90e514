//! Why the status of the coordinator is incomplete, and what there is to say of one that is complete.

use kube::runtime::events::EventType;
use thiserror::Error;

use super::cidrs::InvalidCidr;

const BY_HAND: &str = "set spec.podCIDRType to none and list the pod CIDRs in spec.hijackCIDR";

/// Why pod CIDRs or Service CIDRs are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum StatusProblem {
    /// Nothing that belongs to the cluster itself names pod CIDRs.
    #[error("the cluster's pod CIDRs are unknown: {}; {BY_HAND}", .looked.join(", "))]
    Cluster {
        /// Where they were looked for, and what was found there.
        looked: Vec<String>,
        /// Whether one of these places could not be read.
        is_unread: bool,
    },
    /// What auto decides by could not be read: the network may be there or not.
    #[error("podCIDRType auto cannot read {what}: {error}")]
    Undecided {
        /// The objects.
        what: &'static str,
        /// Why.
        error: String,
    },
    /// Calico has no pool from which a pod gets addresses.
    #[error(
        "Calico's pod CIDRs are unknown: {found}; create an IPPool, or {BY_HAND} (also where Calico keeps its data in an \
         etcd of its own)"
    )]
    Calico {
        /// What was found instead.
        found: String,
    },
    /// Calico may have pools.
    #[error("Calico's pod CIDRs are unknown: its IPPools cannot be read: {0}")]
    CalicoUnread(String),
    /// Cilium names no CIDR.
    #[error("Cilium's pod CIDRs are unknown: {0}")]
    Cilium(CiliumProblem),
    /// Nothing names Service CIDRs.
    #[error("the Service CIDRs are unknown: {}; list them in spec.hijackCIDR", .looked.join(", "))]
    Services {
        /// Where they were looked for.
        looked: Vec<String>,
    },
}

/// Why Cilium's pod CIDRs are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum CiliumProblem {
    /// The ConfigMap is not where it should be.
    #[error(
        "ConfigMap {0} does not exist; the chart's value global.ciliumConfigMap says where it is, as namespace/name"
    )]
    NoConfigMap(String),
    /// The ConfigMap or the pools cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// There is no pool in the ConfigMap.
    #[error(
        "ConfigMap {0} has no CIDR in cluster-pool-ipv4-cidr or cluster-pool-ipv6-cidr; set \
         ipam.operator.clusterPoolIPv4PodCIDRList in Cilium's chart, or {BY_HAND}"
    )]
    NoClusterPool(String),
    /// There is no pool object.
    #[error("ipam is multi-pool and there is no CiliumPodIPPool with a CIDR; create one, or {BY_HAND}")]
    NoPodIpPool,
    /// The addresses are of a cloud or of another plugin.
    #[error("Cilium's ipam mode {0} is not supported, the cluster has no CIDR for it; {BY_HAND}")]
    Ipam(String),
    /// Cilium gives no addresses at all.
    #[error(
        "cni-chaining-mode is {0}, so another plugin gives the addresses; set spec.podCIDRType to that plugin's type \
         (calico or cluster), or {BY_HAND}"
    )]
    Chained(String),
}

/// What does not keep pods from starting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Note {
    /// There was a choice.
    #[error("podCIDRType auto found {found}: {because}")]
    Detected {
        /// The networks of which there are traces.
        found: String,
        /// What was decided, and why.
        because: String,
    },
    /// Something that could not be looked at; what was found without it counts.
    #[error("{what} cannot be read: {error}")]
    Unread {
        /// The objects.
        what: &'static str,
        /// Why.
        error: String,
    },
    /// Pods have addresses of a cloud's network.
    #[error(
        "the cluster's network is a cloud's ({0}), for which the cluster has no pod CIDRs: list those of your network \
         in spec.hijackCIDR"
    )]
    Cloud(String),
    /// An entry that was left out.
    #[error("{0}")]
    Invalid(InvalidCidr),
    /// Pods that run need them, whatever cannot be found out now.
    #[error("the CIDRs that were known before are kept")]
    Kept,
}

impl StatusProblem {
    /// Whether there may be CIDRs that could not be read.
    pub(super) fn is_unread(&self) -> bool {
        match self {
            Self::Undecided { .. } | Self::CalicoUnread(_) | Self::Cilium(CiliumProblem::Unreadable(_)) => {
                true
            }
            Self::Cluster { is_unread, .. } => *is_unread,
            Self::Calico { .. } | Self::Cilium(_) | Self::Services { .. } => false,
        }
    }

    /// The reason of an Event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Cluster { .. } => "ClusterNotReady",
            Self::Undecided { .. } => "CNINotReadable",
            Self::Calico { .. } | Self::CalicoUnread(_) => "CalicoNotReady",
            Self::Cilium(_) => "CiliumNotReady",
            Self::Services { .. } => "ServiceCIDRUnknown",
        }
    }
}

impl Note {
    /// Whether somebody has to do something.
    pub(super) fn event_type(&self) -> EventType {
        match self {
            Self::Detected { .. } | Self::Kept => EventType::Normal,
            Self::Unread { .. } | Self::Cloud(_) | Self::Invalid(_) => EventType::Warning,
        }
    }

    /// The reason of an Event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Detected { .. } => "CNIDetected",
            Self::Unread { .. } => "NotReadable",
            Self::Cloud(_) => "PodCIDRUnknown",
            Self::Invalid(_) => "InvalidCIDR",
            Self::Kept => "CIDRsKept",
        }
    }
}
