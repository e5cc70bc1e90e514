//! Reads what plans are made from.

use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::agent::coordinator::CoordinatorConfig;
use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{NamespaceState, PlanError};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::snapshot::{Contents, Policy};
use tracing::debug;

use super::NetConf;
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::result_addresses;

/// The pod's namespace, with the NIC's addresses in the order in which the main plugin's result names them.
pub(super) async fn read_pod(
    netlink: &mut Netlink,
    request: &Request,
    conf: &NetConf,
    contents: Contents,
) -> Result<NamespaceState, NetlinkError> {
    let mut pod = netlink.snapshot(contents).await?;
    pod.put_first(&request.nic, &result_addresses(&conf.base.prev_result, request.nic.as_str()));
    Ok(pod)
}

/// With which source the node reaches each of the NIC's addresses.
pub(super) async fn sources(node: &mut Netlink, pod: &NamespaceState, nic: &IfName) -> Vec<(IpAddr, IpAddr)> {
    let mut sources = Vec::new();
    for address in pod.usable_addresses(nic).iter().map(IpNet::addr) {
        match node.source_for(address).await {
            Ok(source) => sources.extend(source.map(|source| (address, source))),
            Err(error) => debug!(%address, %error, "source address cannot be looked up"),
        }
    }
    sources
}

/// What there is on the node link's host end; nothing if it is not there.
pub(super) async fn read_host_end(node: &mut Netlink, name: &IfName) -> Result<NamespaceState, NetlinkError> {
    let contents = Contents { routes: true, neighbors: true, ..Contents::default() };
    node.snapshot_of(&[name], contents).await
}

/// What the node has of these addresses of the pod: permanent neighbors on its host end, and routes in this table.
pub(super) async fn read_node(
    node: &mut Netlink,
    host_end: &IfName,
    table: u32,
    addresses: &[IpNet],
) -> Result<NamespaceState, NetlinkError> {
    let contents = Contents { neighbors: true, policy: Policy::Rules, ..Contents::default() };
    let mut state = node.snapshot_of(&[host_end], contents).await?;
    for route in node.routes_in(table).await? {
        if addresses.iter().any(|net| route.dst == IpNet::from(net.addr()))
            && let Some(link) = node.link_by_index(route.dev).await?
        {
            state.table_routes.extend(route.with_dev(|_| Some(link.name)));
        }
    }
    Ok(state)
}

/// The other end of the cluster NIC, which must be a pair to this node.
pub(super) async fn host_veth(
    node: &mut Netlink,
    pod: &NamespaceState,
    cluster_nic: &IfName,
) -> Result<HostVeth, PluginError> {
    let nic = pod.link(cluster_nic).ok_or_else(|| PlanError::NoClusterNic(cluster_nic.clone()))?;
    let unsupported = || {
        let kind = if nic.kind.is_empty() { "physical device" } else { &nic.kind };
        PluginError::from(Unsupported::ClusterNicKind { nic: cluster_nic.clone(), kind: kind.to_owned() })
    };
    let index = nic.peer.filter(|_| nic.is_one_of_a_pair()).ok_or_else(unsupported)?;
    let peer = node.link_by_index(index).await?;
    // An index is valid in one namespace only: the two ends must name each other.
    let peer = peer.filter(|link| link.kind == nic.kind && link.peer == Some(nic.index));
    let peer = peer.ok_or_else(unsupported)?;
    let is_port = peer.master.is_some();
    let end = HostEnd { name: peer.name, mac: peer.mac.ok_or_else(unsupported)? };
    Ok(HostVeth { end, is_port })
}

/// The node's end of the pod's way to its node.
pub(super) struct HostEnd {
    pub(super) name: IfName,
    pub(super) mac: MacAddr,
}

/// The node's end of the cluster NIC.
pub(super) struct HostVeth {
    pub(super) end: HostEnd,
    /// Whether it is a port of a switch: of a bridge, or of Open vSwitch, whose datapath's device is the master.
    pub(super) is_port: bool,
}

/// The agent's answer for the plan: its node addresses without duplicates, in its order.
pub(super) fn node_addresses(answer: &CoordinatorConfig) -> Vec<IpAddr> {
    let mut nodes = Vec::new();
    for address in &answer.node_addresses {
        if !nodes.contains(address) {
            nodes.push(*address);
        }
    }
    nodes
}
