//! Which pods share a set of steered CIDRs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_core::dataplane::OwnCidrs;

/// What distinguishes one pod's set of CIDRs from another's. Almost all pods of a node share one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileKey {
    /// Subnets of the pod's NICs.
    pub connected: BTreeSet<IpNet>,
    /// Destinations of the pod's own routes.
    pub routes: BTreeSet<IpNet>,
    /// What the pod's networks name in place of the cluster's CIDRs.
    pub own: OwnCidrs,
    /// Next hops of the pod's routes by underlay NICs.
    pub gateways: BTreeSet<IpAddr>,
}

impl ProfileKey {
    /// `stay` are destinations that must not be steered: those of `connected` are subnets of NICs, the others routes.
    pub fn new(stay: BTreeSet<IpNet>, connected: &BTreeSet<IpNet>, own: OwnCidrs) -> Self {
        let (connected, routes) = stay.into_iter().partition(|net| connected.contains(net));
        Self { connected, routes, own, gateways: BTreeSet::new() }
    }

    /// Whether the cluster's own CIDRs are part of it.
    pub fn needs_cluster(&self) -> bool {
        self.own.needs_cluster()
    }
}
