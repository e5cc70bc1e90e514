//! How the node reaches the pod's underlay addresses: a table of their routes, and a rule that asks it first.
//!
//! Not the main table: Calico's agent deletes routes there that lead to a pod and are not its own.

use ipnet::IpNet;

use super::cluster_routes::ClusterNic;
use super::inputs::PolicyInputs;
use crate::coordinator::{Namespace, Step};
use crate::ip::Family;
use crate::net::{Neighbor, Route, Rule, Selector};

/// Priority of the rule: before the main table and before what other network plugins add.
pub const HOST_RULE_PRIORITY: u32 = 1000;

/// The metric of a NIC's routes on the node, by which its DEL knows them, and a late DEL of an earlier sandbox with the
/// same address does not: FNV-1a of container, network and NIC. There is one route per address, so it decides nothing.
pub fn host_route_mark(container_id: &str, network: &str, nic: &str) -> u32 {
    let text = format!("{container_id} {network} {nic}");
    let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    // The kernel reads 0 as 1024 for IPv6.
    text.bytes().fold(0x811c_9dc5, fold).max(1)
}

pub(super) fn plan(inputs: &PolicyInputs<'_>, cluster: &ClusterNic<'_>, addresses: &[IpNet]) -> Vec<Step> {
    let table = inputs.config.host_rule_table;
    let metric = host_route_mark(inputs.container_id, inputs.network, inputs.nic.as_str());
    let dev = inputs.host_end;
    let (mut neighbors, mut routes) = (Vec::new(), Vec::new());
    let used = addresses.iter().filter(|net| cluster.families.contains(&Family::of_net(net)));
    for address in used.map(IpNet::addr) {
        let neighbor = Neighbor { dev: dev.clone(), address, mac: cluster.mac };
        if !inputs.node.neighbors.contains(&neighbor) {
            neighbors.push(Step::SetNeighbor { namespace: Namespace::Node, neighbor });
        }
        let route = Route { metric, table, ..Route::new(address.into(), dev.clone()) };
        // Of a pod that had the address before, or of an earlier attempt with another one.
        let stale = inputs.node.table_routes.iter();
        let stale = stale.filter(|r| r.table == table && r.dst == route.dst && **r != route);
        routes.extend(stale.map(|r| Step::DeleteRoute { namespace: Namespace::Node, route: r.clone() }));
        if !inputs.node.table_routes.contains(&route) {
            routes.push(Step::AddRoute { namespace: Namespace::Node, route });
        }
    }
    // Always, and after the routes: the DEL of another pod may remove a rule whose table is empty.
    let rules = cluster.families.iter().map(|family| Step::AddRule {
        namespace: Namespace::Node,
        rule: Rule::new(*family, HOST_RULE_PRIORITY, Selector::All, table),
    });
    neighbors.into_iter().chain(routes).chain(rules).collect()
}
