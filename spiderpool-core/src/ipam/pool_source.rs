//! What may name the pools of a NIC.

use std::fmt;

use super::annotation_key as key;

/// What names the pools of a NIC, in the order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolSource {
    /// The pod's annotations `subnets` and `subnet`, by which the pools are made.
    SubnetAnnotations,
    /// The pod's annotation `ippools`.
    IppoolsAnnotation,
    /// The pod's annotation `ippool`.
    IppoolAnnotation,
    /// The annotations `default-ipv4-ippool` and `default-ipv6-ippool` of the pod's namespace.
    NamespaceAnnotations,
    /// The CNI configuration.
    CniConfiguration,
    /// Pools with `spec.default`.
    ClusterDefault,
}

impl fmt::Display for PoolSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SubnetAnnotations => {
                write!(f, "the Pod annotation '{}' or '{}'", key::SUBNETS, key::SUBNET)
            }
            Self::IppoolsAnnotation => write!(f, "the Pod annotation '{}'", key::IPPOOLS),
            Self::IppoolAnnotation => write!(f, "the Pod annotation '{}'", key::IPPOOL),
            Self::NamespaceAnnotations => {
                write!(
                    f,
                    "the Namespace annotations '{}' and '{}'",
                    key::NAMESPACE_IPV4_POOLS,
                    key::NAMESPACE_IPV6_POOLS
                )
            }
            Self::CniConfiguration => f.write_str("the CNI configuration"),
            Self::ClusterDefault => f.write_str("the cluster's default"),
        }
    }
}
