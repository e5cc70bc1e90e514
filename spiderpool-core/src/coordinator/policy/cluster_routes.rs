//! The way to the cluster: the node's addresses on the cluster NIC, and the cluster's CIDRs by one of them.
//!
//! The next hop is an address of the node only to name a permanent neighbor, the MAC of the host end (or of eth0's next hop of the
//! family, where that is another port of a switch). So it does not matter whether the node keeps the address.

use std::net::IpAddr;

use ipnet::IpNet;

use super::inputs::PolicyInputs;
use crate::coordinator::{Namespace, Step, plan_pod_neighbors};
use crate::ip::Family;
use crate::mac::MacAddr;
use crate::names::IfName;
use crate::net::{MAIN_TABLE, Neighbor, Route};

/// The NIC to the node and the cluster.
pub(super) struct ClusterNic<'a> {
    /// eth0 in overlay mode, veth0 in underlay mode.
    pub(super) dev: &'a IfName,
    /// Its MAC.
    pub(super) mac: MacAddr,
    /// The families in which it is used.
    pub(super) families: Vec<Family>,
}

impl ClusterNic<'_> {
    /// The node's addresses that it leads to.
    fn nodes<'a>(&'a self, inputs: &'a PolicyInputs<'_>) -> impl Iterator<Item = IpAddr> + 'a {
        inputs.nodes.iter().copied().filter(|node| self.families.contains(&Family::of(*node)))
    }

    fn route(&self, inputs: &PolicyInputs<'_>, dst: IpNet, table: u32) -> Route {
        let family = Family::of_net(&dst);
        let metric = if family == Family::V6 { 1024 } else { 0 }; // as the kernel lists it
        let source = self.source(inputs, family);
        Route { source, metric, table, ..Route::new(dst, self.dev.clone()) }
    }

    /// With which source the pod uses it. Of IPv6 it is left to the kernel where the NIC has none, as upstream does.
    fn source(&self, inputs: &PolicyInputs<'_>, family: Family) -> Option<IpAddr> {
        let of = |nic: &IfName| inputs.pod.usable_addresses(nic);
        let addresses = match family {
            Family::V4 => of(&inputs.config.first_nic),
            Family::V6 => of(self.dev),
        };
        addresses.iter().map(IpNet::addr).find(|address| Family::of(*address) == family)
    }

    /// The next hop to the cluster: the node's first address, otherwise what the NIC's own default route has.
    fn next_hop(&self, inputs: &PolicyInputs<'_>, family: Family) -> Option<(IpAddr, bool)> {
        let node = self.nodes(inputs).find(|node| Family::of(*node) == family).map(|node| (node, false));
        let pod = inputs.pod;
        let own = || {
            let mut routes = pod.routes.iter().chain(&pod.table_routes);
            let default = routes.find(|r| r.is_default() && r.family() == family && r.dev == *self.dev)?;
            Some((default.gateway?, default.onlink))
        };
        node.or_else(own)
    }
}

/// The node's addresses as neighbors.
pub(super) fn plan_neighbors(inputs: &PolicyInputs<'_>, cluster: &ClusterNic<'_>) -> Vec<Step> {
    let mac = |node| inputs.peers.of(Family::of(node));
    let wanted = cluster.nodes(inputs).map(|address| Neighbor {
        dev: cluster.dev.clone(),
        address,
        mac: mac(address),
    });
    plan_pod_neighbors(&inputs.pod.neighbors, wanted.collect())
}

/// Adds what the main table lacks. A route to exactly the same destination is somebody's decision and stays.
pub(super) fn plan_main(inputs: &PolicyInputs<'_>, cluster: &ClusterNic<'_>, main: &[Route]) -> Vec<Step> {
    let missing = routes(inputs, cluster, MAIN_TABLE).into_iter();
    let missing = missing.filter(|route| !main.iter().any(|r| r.dst == route.dst && r.from.is_none()));
    missing.map(|route| Step::AddRoute { namespace: Namespace::Pod, route }).collect()
}

/// Default routes by the cluster NIC, in its table.
pub(super) fn default_routes(inputs: &PolicyInputs<'_>, cluster: &ClusterNic<'_>, table: u32) -> Vec<Route> {
    let default = |family: &Family| {
        let (gateway, onlink) = cluster.next_hop(inputs, *family)?;
        Some(Route { gateway: Some(gateway), onlink, ..cluster.route(inputs, family.default_route(), table) })
    };
    cluster.families.iter().filter_map(default).collect()
}

/// The routes to node and cluster, in a table: those to the node first, by which the others find their next hop.
pub(super) fn routes(inputs: &PolicyInputs<'_>, cluster: &ClusterNic<'_>, table: u32) -> Vec<Route> {
    let route = |dst: IpNet| cluster.route(inputs, dst, table);
    let mut found: Vec<Route> = cluster.nodes(inputs).map(|node| route(IpNet::from(node))).collect();
    for cidr in &inputs.config.cluster_cidrs {
        let family = Family::of_net(cidr);
        let next_hop = cluster.next_hop(inputs, family).filter(|_| cluster.families.contains(&family));
        let Some((gateway, onlink)) = next_hop else { continue };
        let route = Route { gateway: Some(gateway), onlink, ..route(*cidr) };
        if !found.iter().any(|other| other.dst == route.dst) {
            found.push(route);
        }
    }
    found
}
