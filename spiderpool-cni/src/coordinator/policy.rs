//! `dataplane: policy`: rules and tables, by the plugin alone. The agent says what the plan depends on, and knows nothing
//! of the pod afterwards.

use std::collections::BTreeSet;

use ipnet::IpNet;
use spiderpool_api::agent::coordinator::CoordinatorConfig;
use spiderpool_core::coordinator::{
    Config, Namespace, NamespaceState, NodeLink, PeerMacs, PolicyInputs, Step, VETH0, check_pod_cidrs,
    host_route_mark, plan_policy_overlay, plan_policy_underlay, plan_removal, veth0_of,
};
use spiderpool_core::names::IfName;
use spiderpool_core::net::ROUTE_PROTOCOL;
use spiderpool_net::executor::{Executor, MissingDevice};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;
use spiderpool_net::tc::Direction;
use tracing::{debug, info, warn};

use super::NetConf;
use super::next_hops::{NextHops, peer_macs};
use super::setup::PodMode;
use super::state::{HostEnd, host_veth, node_addresses, read_node, read_pod};
use crate::env::Request;
use crate::error::PluginError;

/// Plans, applies, and rolls back if a step fails.
pub(super) async fn add(
    mode: PodMode,
    request: &Request,
    conf: &NetConf,
    config: &Config,
    answer: &CoordinatorConfig,
    executor: &mut Executor<'_>,
) -> Result<(), PluginError> {
    let next_hops = NextHops::OfEachFamily;
    let steps = plan(mode, request, conf, config, answer, next_hops, executor).await?;
    if let Err(error) = executor.apply(&steps).await {
        warn!(%error, "ADD failed, rolling back");
        for error in executor.roll_back().await {
            warn!(step = %error.step, error = %error.source, "step cannot be rolled back");
        }
        return Err(error.into());
    }
    info!(steps = steps.len(), "NIC is set up with rules and tables");
    Ok(())
}

/// What is to be done, or is missing.
pub(super) async fn plan(
    mode: PodMode,
    request: &Request,
    conf: &NetConf,
    config: &Config,
    answer: &CoordinatorConfig,
    next_hops: NextHops,
    executor: &mut Executor<'_>,
) -> Result<Vec<Step>, PluginError> {
    let pod = read_pod(executor.netlink(Namespace::Pod), request, conf, Contents::ALL).await?;
    let addresses = pod.usable_addresses(&request.nic);
    let nodes = node_addresses(answer);
    if nodes.is_empty() {
        warn!("the agent names no node addresses: the pod has no way to its node");
    }
    let container_id = request.container_id.as_str();
    let (host_end, peers) = match mode {
        PodMode::Underlay => {
            let node = executor.netlink(Namespace::Node);
            let end = veth0_host_end(node, &pod, container_id, config).await?;
            (end.name, PeerMacs::both(end.mac))
        }
        PodMode::Overlay => {
            check_pod_cidrs(&request.nic, &addresses, &config.pod_cidrs, &answer.address_pools)?;
            let found = host_veth(executor.netlink(Namespace::Node), &pod, &config.first_nic).await?;
            let netlink = executor.netlink(Namespace::Pod);
            let peers = peer_macs(netlink, &pod, &nodes, &config.first_nic, &found, next_hops).await?;
            (found.end.name, peers)
        }
    };
    let node = executor.netlink(Namespace::Node);
    let inputs = PolicyInputs {
        container_id,
        network: &conf.base.name,
        nic: &request.nic,
        config,
        pod: &pod,
        node: &read_node(node, &host_end, config.host_rule_table, &addresses).await?,
        host_end: &host_end,
        peers,
        nodes: &nodes,
        expected: answer.expected_nics.as_deref(),
    };
    Ok(match mode {
        PodMode::Underlay => plan_policy_underlay(&inputs)?,
        PodMode::Overlay => plan_policy_overlay(&inputs)?,
    })
}

/// As it is, or as the first NIC's ADD makes it.
async fn veth0_host_end(
    node: &mut Netlink,
    pod: &NamespaceState,
    container_id: &str,
    config: &Config,
) -> Result<HostEnd, PluginError> {
    let link = veth0_of(container_id, config)?;
    if pod.link(&link.pod).is_some() {
        return Ok(host_veth(node, pod, &link.pod).await?.end);
    }
    Ok(HostEnd { name: link.host, mac: link.host_mac })
}

/// DEL of what [`add`] made. Whether the node had something of the NIC.
///
/// The node's routes carry a mark of container, network and NIC, so neither namespace nor previous result is needed.
pub(super) async fn del(request: &Request, conf: &NetConf) -> Result<bool, PluginError> {
    let mut node = Netlink::open()?;
    let first_nic = conf.settings.first_nic()?;
    let cleaned = clean(&mut node, request, conf, &first_nic).await;
    // Whatever failed before, and not left to the end of the namespace: sockets that wait for an answer keep it for minutes after
    // the pod.
    if request.nic == first_nic {
        delete_veth0(&mut node, request).await?;
    }
    cleaned
}

/// Removes what the NIC has on the node and in a pod that is there; whether the node had something.
async fn clean(
    node: &mut Netlink,
    request: &Request,
    conf: &NetConf,
    first_nic: &IfName,
) -> Result<bool, PluginError> {
    let host_ends = remove_from_node(node, request, conf).await?;
    // Also where the last pod's routes went with its links.
    node.delete_idle_rules().await?;
    if let Some(netns) = open_own(node, request, first_nic, &host_ends).await? {
        clean_pod(&netns, request, first_nic).await?;
    }
    Ok(!host_ends.is_empty())
}

/// Deletes veth0 of this sandbox. It is shared by the pod's NICs and goes with the first. One with programs is not ours.
async fn delete_veth0(node: &mut Netlink, request: &Request) -> Result<(), PluginError> {
    let link = NodeLink::underlay(request.container_id.as_str(), None)?;
    let found = node.link_by_name(&link.host).await?.filter(|found| found.mac == Some(link.host_mac));
    let Some(found) = found else { return Ok(()) };
    if node.own_filter(found.index, Direction::Ingress).await?.is_none() {
        node.delete_link(&link.host).await?;
    }
    Ok(())
}

/// Removes routes and neighbors; answers by which devices they led.
async fn remove_from_node(
    node: &mut Netlink,
    request: &Request,
    conf: &NetConf,
) -> Result<BTreeSet<u32>, NetlinkError> {
    let (container_id, nic) = (request.container_id.as_str(), request.nic.as_str());
    let mark = host_route_mark(container_id, &conf.base.name, nic);
    let mut routes = node.further_routes(Some(ROUTE_PROTOCOL)).await?;
    routes.retain(|route| route.metric == mark);
    for route in &routes {
        debug!(%route, "deleting route");
        node.delete_route(route).await?;
        node.delete_neighbor(route.dev, route.dst.addr()).await?;
    }
    Ok(routes.iter().map(|route| route.dev).collect())
}

/// The sandbox's namespace, if it is there and its cluster NIC is the other end of one of these devices: the path may
/// have been given to another sandbox since.
async fn open_own(
    node: &mut Netlink,
    request: &Request,
    first_nic: &IfName,
    host_ends: &BTreeSet<u32>,
) -> Result<Option<NetNs>, PluginError> {
    if request.netns.is_empty() || host_ends.is_empty() {
        return Ok(None);
    }
    let Ok(netns) = NetNs::open(&request.netns).inspect_err(|error| debug!(%error, "no namespace")) else {
        return Ok(None);
    };
    let pod = netns.netlink()?.snapshot(Contents::default()).await?;
    let veth0: IfName = VETH0.parse()?;
    let cluster_nic = if pod.link(&veth0).is_some() { &veth0 } else { first_nic };
    let host_end = host_veth(node, &pod, cluster_nic).await;
    let Ok(host_end) = host_end.inspect_err(|error| debug!(%error, "not this sandbox's namespace")) else {
        return Ok(None);
    };
    let link = node.link_by_name(&host_end.end.name).await?;
    Ok(link.filter(|link| host_ends.contains(&link.index)).map(|_| netns))
}

/// A pod that goes on living loses the NIC's rules and table; one that loses its first NIC does not.
async fn clean_pod(netns: &NetNs, request: &Request, first_nic: &IfName) -> Result<(), PluginError> {
    let mut executor = Executor::new(netns, MissingDevice::Skip)?;
    let netlink = executor.netlink(Namespace::Pod);
    let pod = netlink.snapshot(Contents::ALL).await?;
    let addresses: Vec<IpNet> = pod.usable_addresses(&request.nic);
    let mut steps = Vec::new();
    if request.nic != *first_nic {
        steps = plan_removal(&pod, &request.nic, &addresses, first_nic);
    }
    // Once its address is free, nobody may answer for it on the wire.
    if let Some(link) = pod.link(&request.nic) {
        for net in &addresses {
            netlink.delete_address(link.index, *net).await?;
        }
    }
    Ok(executor.apply(&steps).await?)
}
