//! Reads what plans are made from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{HostEnd, Namespace, PlanError};
use spiderpool_core::ip::Family;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Address, Link, Medium, Neighbor};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use tracing::debug;

use super::NetConf;
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::result_addresses;

/// Everything of the pod's namespace.
pub(super) fn read_pod(netlink: &mut Netlink) -> Result<Namespace, NetlinkError> {
    let links = netlink.links()?;
    let names: BTreeMap<u32, IfName> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    let name = |index: &u32| names.get(index).cloned();
    let addresses = netlink.addresses(None)?;
    let routes = netlink.routes()?;
    let mut neighbors = Vec::new();
    for link in links.iter().filter(|link| link.medium == Medium::Ethernet) {
        neighbors.extend(netlink.permanent_neighbors(link.index)?);
    }
    Ok(Namespace {
        addresses: addresses
            .iter()
            .filter_map(|a| Some(Address { dev: name(&a.dev)?, net: a.net }))
            .collect(),
        routes: routes.iter().filter_map(|route| route.with_dev(name)).collect(),
        neighbors: neighbors.iter().filter_map(|n| named(n, name(&n.dev))).collect(),
        links,
    })
}

/// The pod's namespace, with the NIC's addresses in the order in which the main plugin's result names them.
pub(super) fn read_pod_of(
    netlink: &mut Netlink,
    request: &Request,
    conf: &NetConf,
) -> Result<Namespace, NetlinkError> {
    let mut pod = read_pod(netlink)?;
    pod.put_first(&request.nic, &result_addresses(&conf.base.prev_result, request.nic.as_str()));
    Ok(pod)
}

/// With which source the node reaches each of the NIC's addresses.
pub(super) fn sources(host: &mut Netlink, pod: &Namespace, nic: &IfName) -> Vec<(IpAddr, IpAddr)> {
    let source = |net: &IpNet| {
        let found = host.source_for(net.addr());
        let found = found.inspect_err(|error| debug!(%error, "the kernel tells no source for an address"));
        Some((net.addr(), found.ok()??))
    };
    pod.usable_addresses(nic).iter().filter_map(source).collect()
}

/// What there is on the node link's host end; nothing if it is not there.
pub(super) fn read_host_end(netlink: &mut Netlink, name: &IfName) -> Result<HostEnd, NetlinkError> {
    let Some(link) = netlink.link_by_name(name)? else { return Ok(HostEnd::default()) };
    let mut routes = Vec::new();
    for family in Family::ALL {
        routes.extend(netlink.routes_of(family, Some(link.index))?);
    }
    let neighbors = netlink.permanent_neighbors(link.index)?;
    Ok(HostEnd {
        routes: routes.iter().filter_map(|route| route.with_dev(|_| Some(name.clone()))).collect(),
        neighbors: neighbors.iter().filter_map(|n| named(n, Some(name.clone()))).collect(),
    })
}

fn named(neighbor: &Neighbor<u32>, dev: Option<IfName>) -> Option<Neighbor> {
    Some(Neighbor { dev: dev?, address: neighbor.address, mac: neighbor.mac })
}

/// MAC of the other end of the cluster NIC, which must be a veth to this node.
pub(super) fn cluster_peer(
    host: &mut Netlink,
    pod: &Namespace,
    cluster_nic: &IfName,
) -> Result<MacAddr, PluginError> {
    let nic = pod.link(cluster_nic).ok_or_else(|| PlanError::NoClusterNic(cluster_nic.clone()))?;
    let unsupported = || {
        let kind = if nic.kind.is_empty() { "physical device" } else { &nic.kind };
        PluginError::from(Unsupported::ClusterNicKind { nic: cluster_nic.clone(), kind: kind.to_owned() })
    };
    let index = nic.peer.filter(|_| nic.kind == "veth").ok_or_else(unsupported)?;
    let peer = host.link_by_index(index)?;
    // An index is of one namespace; that the two name each other tells that this is the right one.
    let is_peer = |link: &Link| link.kind == "veth" && link.peer == Some(nic.index);
    peer.filter(is_peer).and_then(|link| link.mac).ok_or_else(unsupported)
}
