//! Reads what plans are made from.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use spiderpool_api::agent::coordinator::CoordinatorConfig;
use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{NamespaceState, PlanError};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::snapshot::{Contents, Policy};
use tracing::{debug, warn};

use super::NetConf;
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::result_addresses;

/// How long a next hop may take to answer.
const NEXT_HOP_LIMIT: Duration = Duration::from_secs(1);

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

/// To which MAC the pod sends what leaves by the cluster NIC. A routed veth's host end answers for every next hop;
/// where it is a port of a switch, the next hop is another port. If that is silent, what an earlier NIC has found counts: it is
/// the permanent neighbor that stands for the node.
pub(super) async fn next_hop_mac(
    pod_netlink: &mut Netlink,
    pod: &NamespaceState,
    nodes: &[IpAddr],
    cluster_nic: &IfName,
    host_veth: &HostVeth,
) -> Result<MacAddr, PluginError> {
    let Some(nic) = pod.link(cluster_nic).filter(|_| host_veth.is_port) else { return Ok(host_veth.end.mac) };
    // With `dataplane: policy` the NIC before may have moved it to a table.
    let routes = pod.routes.iter().chain(&pod.table_routes);
    let defaults = routes.filter(|route| route.is_default() && route.dev == *cluster_nic);
    let hops: Vec<IpAddr> = defaults.filter_map(|route| route.gateway).collect();
    let until = Instant::now() + NEXT_HOP_LIMIT;
    while !hops.is_empty() && Instant::now() < until {
        for hop in &hops {
            if let Some(mac) = pod_netlink.resolve_neighbor(nic.index, *hop).await? {
                return Ok(mac);
            }
        }
        // Nobody else is served by this thread.
        thread::sleep(Duration::from_millis(5));
    }
    let known =
        pod.neighbors.iter().find(|known| known.dev == *cluster_nic && nodes.contains(&known.address));
    if let Some(known) = known {
        return Ok(known.mac);
    }
    warn!(nic = %cluster_nic, ?hops, "no next hop is known and answers: what is sent there goes to the host veth");
    Ok(host_veth.end.mac)
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
