//! A pool, parsed: what the spec of a SpiderIPPool means once its texts are addresses.

mod conflict;
mod fault;
mod parse;
mod special;

use std::net::IpAddr;

use ipnet::IpNet;

use super::route::IpamRoute;
use crate::ip::{Family, IpSet};
use crate::label_selector::LabelSelector;
use crate::names::PoolName;

pub use conflict::{PodCidrOverlap, PoolConflict, shared_addresses};
pub use fault::{PoolError, PoolFault, PoolProblem};
pub use parse::PoolFields;
pub use special::{AddressRole, SpecialAddress};

/// The spec of a pool, which is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// The subnet; its prefix length is that of the addresses handed out.
    pub subnet: IpNet,
    /// `ips` without `excludeIPs`, and without those [`SpecialAddress`]es that are not named singly.
    pub usable: IpSet,
    /// Next hop of the default route.
    pub gateway: Option<IpAddr>,
    /// Further routes.
    pub routes: Vec<IpamRoute>,
    /// Nodes that may use it; none listed means all.
    pub node_names: Vec<String>,
    /// Namespaces that may use it; none listed means all.
    pub namespace_names: Vec<String>,
    /// Networks that may use it, as written; none listed means all.
    pub multus_names: Vec<String>,
    /// Who may use it by labels.
    pub affinities: Affinities,
    /// Used by pods that name no pool.
    pub default: bool,
    /// No new addresses.
    pub disabled: bool,
}

/// Who may use a pool, by labels; absent means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Affinities {
    /// `spec.podAffinity`.
    pub pod: Option<LabelSelector>,
    /// `spec.nodeAffinity`; ignored where `spec.nodeName` has an entry.
    pub node: Option<LabelSelector>,
    /// `spec.namespaceAffinity`; ignored where `spec.namespaceName` has an entry.
    pub namespace: Option<LabelSelector>,
}

impl Pool {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of_net(&self.subnet)
    }

    /// The nodes that may use it, by labels; where it names nodes, these alone count.
    pub fn node_selector(&self) -> Option<&LabelSelector> {
        self.affinities.node.as_ref().filter(|_| self.node_names.is_empty())
    }

    /// The namespaces that may use it, by labels; where it names namespaces, these alone count.
    pub fn namespace_selector(&self) -> Option<&LabelSelector> {
        self.affinities.namespace.as_ref().filter(|_| self.namespace_names.is_empty())
    }

    /// The usable addresses that are no host's.
    pub fn usable_special(&self) -> impl Iterator<Item = SpecialAddress> + '_ {
        SpecialAddress::of_subnet(&self.subnet).into_iter().filter(|one| self.usable.contains(one.address))
    }

    /// What is left to hand out.
    #[must_use]
    pub fn free(&self, reserved: &IpSet, in_use: &IpSet) -> IpSet {
        self.usable.difference(reserved).difference(in_use)
    }

    /// An address of the pool with the prefix length of its subnet.
    pub fn with_prefix(&self, addr: IpAddr) -> Result<IpNet, ipnet::PrefixLenError> {
        IpNet::new(addr, self.subnet.prefix_len())
    }
}

#[cfg(test)]
mod tests;
