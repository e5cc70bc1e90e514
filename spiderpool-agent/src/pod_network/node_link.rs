//! A pod's node link, kept right while the node's addresses change.

use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::NicRole;
use spiderpool_core::coordinator::{
    Namespace, Step, gateways, plan_host_neighbors, plan_host_routes, plan_link_state, plan_pod_neighbors,
    plan_stale_neighbors, pod_neighbors,
};
use spiderpool_core::names::IfName;
use spiderpool_net::block_on;
use spiderpool_net::executor::{Executor, MissingDevice};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;
use spiderpool_net::tc::Direction;

use super::netns::{LARGEST_DUMP, NamespaceError};
use super::record::PodRecord;

/// Makes the node link, its routes and neighbors what these node addresses ask for; answers what was done.
///
/// With a node address the kernel deletes every route that has it as source.
pub(super) fn refresh(netns: &NetNs, pod: &PodRecord, nodes: &[IpAddr]) -> Result<Vec<Step>, NamespaceError> {
    block_on(plan_and_apply(netns, pod, nodes))
}

/// Removes routes and neighbors that lead to a NIC of a pod that keeps its node link.
pub(crate) fn remove_nic(pod: &PodRecord, nic: &IfName) -> Result<(), NetlinkError> {
    let records = pod.nics.iter().filter(|record| record.nic.name == *nic);
    let addresses: Vec<IpAddr> = records.flat_map(|r| &r.nic.addresses).map(IpNet::addr).collect();
    let Ok(link) = pod.node_link() else { return Ok(()) };
    block_on(async {
        let mut node = Netlink::open()?;
        let contents = Contents { routes: true, neighbors: true, ..Contents::default() };
        let present = node.snapshot_of(&[&link.host], contents).await?;
        let Some(index) = present.link(&link.host).map(|link| link.index) else { return Ok(()) };
        for route in present.routes.iter().filter(|r| addresses.iter().any(|a| r.dst == IpNet::from(*a))) {
            if let Some(route) = route.with_dev(|_| Some(index)) {
                node.delete_route(&route).await?;
            }
        }
        for neighbor in present.neighbors.iter().filter(|n| addresses.contains(&n.address)) {
            node.delete_neighbor(index, neighbor.address).await?;
        }
        Ok(())
    })
}

async fn plan_and_apply(
    netns: &NetNs,
    pod: &PodRecord,
    nodes: &[IpAddr],
) -> Result<Vec<Step>, NamespaceError> {
    let (Ok(link), Some(cluster)) = (pod.node_link(), pod.cluster_nic()) else { return Ok(Vec::new()) };
    let mut executor = Executor::new(netns, MissingDevice::Skip)?;
    let node = executor.netlink(Namespace::Node);
    let contents = Contents { routes: true, neighbors: true, ..Contents::default() };
    let host = node.snapshot_of(&[&link.host], contents).await?;
    let Some(host_end) = host.link(&link.host) else { return Ok(Vec::new()) };
    let stays_down = !host_end.up && !is_guarded(node, host_end.index).await?;
    let underlay: Vec<(&IfName, &[IpNet])> = pod
        .nics
        .iter()
        .filter(|record| record.nic.role == NicRole::Underlay)
        .map(|record| (&record.nic.name, record.nic.addresses.as_slice()))
        .collect();
    let addresses: Vec<IpNet> =
        underlay.iter().flat_map(|(_, addresses)| addresses.iter().copied()).collect();
    let mut sources = Vec::new();
    for address in addresses.iter().map(IpNet::addr) {
        sources.extend(node.source_for(address).await?.map(|source| (address, source)));
    }
    let devices: Vec<&IfName> = underlay.iter().map(|(nic, _)| *nic).chain([&link.pod]).collect();
    executor.netlink(Namespace::Pod).limit_dumps(LARGEST_DUMP);
    let present = executor.netlink(Namespace::Pod).snapshot_of(&devices, Contents::PLAIN).await?;
    let mut steps = plan_link_state(&link, &host, &present, &addresses);
    steps.extend(plan_host_neighbors(&link, &host, &addresses));
    steps.extend(plan_host_routes(&link, &host, nodes, &sources, &addresses));
    let (known, gateways) = (&present.neighbors, gateways(&present.routes));
    let peer = cluster.nic.peer_mac.unwrap_or(cluster.nic.mac);
    let wanted = pod_neighbors(&link, &underlay, peer, nodes, &gateways);
    steps.extend(plan_stale_neighbors(&link, peer, known, &wanted));
    steps.extend(plan_pod_neighbors(known, wanted));
    if stays_down {
        // It has no routes while it is down.
        steps.retain(|step| {
            !matches!(step, Step::SetUp { namespace: Namespace::Node, .. } | Step::ReplaceRoute { .. })
        });
    }
    executor.apply(&steps).await?;
    Ok(steps)
}

/// Whether no filter of another program sees what comes from the pod before ours.
async fn is_guarded(node: &mut Netlink, host_end: u32) -> Result<bool, NetlinkError> {
    let filters = node.filters(host_end, Direction::Ingress).await?;
    Ok(filters.first().is_none_or(|filter| filter.is_ours(Direction::Ingress)))
}

#[cfg(test)]
mod tests;
