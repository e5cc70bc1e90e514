//! A pod's node link, kept right while the node's addresses change.

use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::NicRole;
use spiderpool_core::coordinator::{
    HostEnd, NodeLink, Place, Step, plan_host_neighbors, plan_host_routes, plan_pod_neighbors,
    plan_stale_neighbors, pod_neighbors,
};
use spiderpool_core::ip::Family;
use spiderpool_core::names::IfName;
use spiderpool_core::net::Neighbor;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use tracing::debug;

use super::netns::NamespaceError;
use super::record::PodRecord;

/// Makes routes and neighbours of the node link what these node addresses ask for; answers how many changed.
///
/// With a node address the kernel deletes every route that has it as source.
pub(super) fn refresh(netns: &NetNs, pod: &PodRecord, nodes: &[IpAddr]) -> Result<usize, NamespaceError> {
    let (Ok(link), Some(cluster)) = (NodeLink::of(pod.container_id.as_str()), pod.nic(NicRole::Cluster))
    else {
        return Ok(0);
    };
    let mut ends = Ends { pod: netns.netlink()?, node: Netlink::open()? };
    let Some(present) = ends.host_end(&link)? else { return Ok(0) };
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
        sources.extend(ends.node.source_for(address)?.map(|source| (address, source)));
    }
    let mut steps = plan_host_neighbors(&link, &present, &addresses);
    steps.extend(plan_host_routes(&link, &present, nodes, &sources, &addresses));
    let devices: Vec<&IfName> = underlay.iter().map(|(nic, _)| *nic).chain([&link.pod]).collect();
    let known = ends.pod_neighbors(&devices)?;
    let peer = cluster.nic.peer_mac.unwrap_or(cluster.nic.mac);
    let wanted = pod_neighbors(&link, &underlay, peer, nodes);
    steps.extend(plan_stale_neighbors(&link, peer, &known, &wanted));
    steps.extend(plan_pod_neighbors(&known, wanted));
    for step in &steps {
        debug!(container = %pod.container_id, %step, "node link changes");
        ends.execute(step)?;
    }
    Ok(steps.len())
}

/// The two sides.
struct Ends {
    pod: Netlink,
    node: Netlink,
}

impl Ends {
    fn host_end(&mut self, link: &NodeLink) -> Result<Option<HostEnd>, NetlinkError> {
        let Some(host) = self.node.link_by_name(&link.host)? else { return Ok(None) };
        let name = |_: &u32| Some(link.host.clone());
        let mut end = HostEnd::default();
        for family in Family::ALL {
            let routes = self.node.routes_of(family, Some(host.index))?;
            end.routes.extend(routes.iter().filter_map(|route| route.with_dev(name)));
        }
        let neighbors = self.node.permanent_neighbors(host.index)?.into_iter();
        end.neighbors =
            neighbors.map(|n| Neighbor { dev: link.host.clone(), address: n.address, mac: n.mac }).collect();
        Ok(Some(end))
    }

    fn pod_neighbors(&mut self, devices: &[&IfName]) -> Result<Vec<Neighbor>, NetlinkError> {
        let mut found = Vec::new();
        for dev in devices {
            let Some(link) = self.pod.link_by_name(dev)? else { continue };
            let neighbors = self.pod.permanent_neighbors(link.index)?.into_iter();
            found.extend(neighbors.map(|n| Neighbor { dev: (*dev).clone(), address: n.address, mac: n.mac }));
        }
        Ok(found)
    }

    /// A device that is gone needs nothing.
    fn execute(&mut self, step: &Step) -> Result<(), NetlinkError> {
        match step {
            Step::SetNeighbor { place, neighbor } => self.with(*place, &neighbor.dev, |netlink, dev| {
                netlink.set_neighbor(&Neighbor { dev, address: neighbor.address, mac: neighbor.mac })
            }),
            Step::DeleteNeighbor { place, neighbor } => self
                .with(*place, &neighbor.dev, |netlink, dev| netlink.delete_neighbor(dev, neighbor.address)),
            Step::ReplaceRoute { place, route } => self.with(*place, &route.dev, |netlink, dev| {
                route.with_dev(|_| Some(dev)).map_or(Ok(()), |route| netlink.replace_route(&route))
            }),
            _ => Ok(()),
        }
    }

    fn with(
        &mut self,
        place: Place,
        dev: &IfName,
        act: impl FnOnce(&mut Netlink, u32) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        let netlink = match place {
            Place::Pod => &mut self.pod,
            Place::Node => &mut self.node,
        };
        let Some(link) = netlink.link_by_name(dev)? else { return Ok(()) };
        act(netlink, link.index)
    }
}

#[cfg(test)]
mod tests;
