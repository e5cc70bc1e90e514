//! Why the status of the coordinator is incomplete.

use spiderpool_core::Unsupported;
use thiserror::Error;

use super::kubeadm::KubeadmError;

const CONFIG_MAP: &str = "ConfigMap kube-system/kubeadm-config";

/// Why pod CIDRs or Service CIDRs are unknown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum StatusProblem {
    /// `spec.podCIDRType` names a source that is not read yet.
    #[error(transparent)]
    PodCidrType(#[from] Unsupported),
    /// `spec.podCIDRType` is cluster, and kubeadm's ConfigMap does not name them.
    #[error(
        "podCIDRType cluster: {CONFIG_MAP} {0}: set spec.podCIDRType to none and list the pod CIDRs in spec.hijackCIDR"
    )]
    PodCidrsUnknown(KubeadmProblem),
    /// Neither ServiceCIDR objects nor kubeadm name any.
    #[error(
        "the Service CIDRs are unknown: there is no ServiceCIDR object and {CONFIG_MAP} names none; list them in spec.hijackCIDR"
    )]
    ServiceCidrsUnknown,
}

/// What is wrong with kubeadm's ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum KubeadmProblem {
    /// It does not exist.
    #[error("does not exist")]
    Absent,
    /// It cannot be parsed.
    #[error("cannot be used, {0}")]
    Invalid(#[from] KubeadmError),
    /// It names no pod CIDRs.
    #[error("names no networking.podSubnet")]
    NoPodSubnet,
}

impl StatusProblem {
    /// The reason of an Event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::PodCidrType(_) | Self::PodCidrsUnknown(_) => "ClusterNotReady",
            Self::ServiceCidrsUnknown => "ServiceCIDRUnknown",
        }
    }
}
