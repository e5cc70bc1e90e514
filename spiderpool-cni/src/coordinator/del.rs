//! DEL: works without agent, namespace and previous result, and twice. It never fails: what is left is found by
//! the agent, and a pod's end waits for nobody.

use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_core::coordinator::{
    NODE_LINK, Namespace, NodeLink, Preference, Step, plan_default_routes, plan_source_specific_defaults,
    project,
};
use spiderpool_core::dataplane::{HintInputs, plan_route_hints};
use spiderpool_core::names::IfName;
use spiderpool_core::net::{PROTOCOL_KERNEL, Route};
use spiderpool_dataplane::detach;
use spiderpool_net::block_on;
use spiderpool_net::executor::{Executor, MissingDevice};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;
use spiderpool_net::tc::Direction;
use tracing::{debug, warn};

use super::NetConf;
use super::attach::other_underlay_nics;
use super::policy;
use super::register::attachment;
use super::state::read_host_end;
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::result_addresses;

pub(super) fn del(request: &Request, conf: &NetConf) {
    match block_on(policy::del(request, conf)) {
        // The agent knows nothing of it.
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => warn!(%error, "not everything of rules and tables could be removed"),
    }
    let cleaned =
        block_on(clean(request, conf)).inspect_err(|error| warn!(%error, "not everything could be removed"));
    let Err(error) = conf.client().unregister_nics(&attachment(request, &conf.base.name)) else { return };
    warn!(%error, "unregistering failed, the agent removes the registration later");
    if let Ok(Some(idle)) = cleaned
        && let Err(error) = block_on(async { Netlink::open()?.delete_link(&idle).await })
    {
        warn!(%error, "idle node link is left");
    }
}

/// The node link that is idle now, for the agent to delete. If its pod end cannot be seen, it is deleted here.
///
/// As a rule it goes with the namespace, which the runtime removes after this. Deleting it would wait for several
/// RCU grace periods, 15 to 25 ms, and so would setting the NIC down. If the pod goes on living instead, the agent
/// deletes it later.
async fn clean(request: &Request, conf: &NetConf) -> Result<Option<IfName>, PluginError> {
    let mut node = Netlink::open()?;
    let Some(link) = find_node_link(&mut node, request.container_id.as_str()).await? else { return Ok(None) };
    let Some(netns) = open_own(request, &link).await else {
        node.delete_link(&link.host).await?;
        return Ok(None);
    };
    let left = clean_pod(&netns, request, conf, &link).await;
    let mut gone = result_addresses(&conf.base.prev_result, request.nic.as_str());
    gone.extend(left.iter().flat_map(|left| &left.addresses));
    let gone: Vec<_> = gone.iter().map(IpNet::addr).collect();
    remove_from_host_end(&mut node, &link.host, &gone).await?;
    Ok(left?.is_last.then_some(link.host))
}

/// The sandbox's node link, of an overlay or an underlay pod. It is named by the container: a late DEL of an old sandbox finds
/// nothing of the new one's.
async fn find_node_link(node: &mut Netlink, container_id: &str) -> Result<Option<NodeLink>, PluginError> {
    for link in [NodeLink::new(container_id)?, NodeLink::underlay(container_id, None)?] {
        let found = node.link_by_name(&link.host).await?.filter(|found| found.mac == Some(link.host_mac));
        let Some(found) = found else { continue };
        // A veth0 without programs is of rules and tables: `policy::del` has done what there is to do.
        if !link.is_veth0() || node.own_filter(found.index, Direction::Ingress).await?.is_some() {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// The sandbox's namespace, if it is there and the node link in it says that it is this sandbox's: the path may
/// have been given to another one since.
async fn open_own(request: &Request, link: &NodeLink) -> Option<NetNs> {
    if request.netns.is_empty() {
        return None;
    }
    let netns = NetNs::open(&request.netns).inspect_err(|error| debug!(%error, "no namespace")).ok()?;
    let found = netns.netlink().ok()?.link_by_name(&link.pod).await.ok()??;
    if found.mac != Some(link.pod_mac) {
        debug!("the namespace is another sandbox's");
        return None;
    }
    Some(netns)
}

/// What was found of the NIC.
struct Left {
    /// The addresses that it had.
    addresses: Vec<IpNet>,
    /// Whether the pod has no other underlay NIC.
    is_last: bool,
}

async fn clean_pod(
    netns: &NetNs,
    request: &Request,
    conf: &NetConf,
    node_link: &NodeLink,
) -> Result<Left, PluginError> {
    let mut executor = Executor::new(netns, MissingDevice::Fail)?;
    let netlink = executor.netlink(Namespace::Pod);
    let pod = netlink.snapshot(Contents::PLAIN).await?;
    let first_nic = conf.settings.first_nic()?;
    // In underlay mode the first NIC is one of ours.
    let cluster_nic = if node_link.is_veth0() { &node_link.pod } else { &first_nic };
    let addresses = pod.usable_addresses(&request.nic);
    if let Some(link) = pod.link(&request.nic).filter(|_| request.nic != *cluster_nic) {
        // Once its address is free, nobody may answer for it on the wire.
        for net in &addresses {
            netlink.delete_address(link.index, *net).await?;
        }
        // A NIC without our filters is not counted when the next one goes.
        detach(netlink, link.index).await?;
    }
    let is_last = other_underlay_nics(netlink, &pod, &request.nic, cluster_nic).await?.is_empty();
    if is_last {
        restore(&mut executor, &request.nic, &first_nic, cluster_nic).await?;
    }
    Ok(Left { addresses, is_last })
}

/// A pod that goes on living has its first NIC as the main CNI plugin made it.
async fn restore(
    executor: &mut Executor<'_>,
    nic: &IfName,
    first_nic: &IfName,
    cluster_nic: &IfName,
) -> Result<(), PluginError> {
    let netlink = executor.netlink(Namespace::Pod);
    let pod = netlink.snapshot(Contents::PLAIN).await?;
    for link in pod.links.iter().filter(|l| l.name == *cluster_nic || l.name.as_str() == NODE_LINK) {
        detach(netlink, link.index).await?;
    }
    let (gone, routes): (Vec<Route>, Vec<Route>) = pod.routes.into_iter().partition(|r| r.dev == *nic);
    let gone = gone.into_iter().filter(|r| r.protocol != PROTOCOL_KERNEL);
    let mut steps: Vec<Step> =
        gone.map(|route| Step::DeleteRoute { namespace: Namespace::Pod, route }).collect();
    steps.extend(plan_route_hints(&HintInputs {
        cluster_nic,
        first_nic,
        addresses: &pod.addresses,
        routes: &routes,
        cidrs: &[],
        nodes: &[],
    }));
    let preference = Preference { wanted: Some(first_nic), nic, first_nic };
    let defaults = plan_default_routes(&routes, &preference)?;
    let by_source = plan_source_specific_defaults(&project(&routes, &defaults), &pod.addresses);
    steps.extend(defaults.into_iter().chain(by_source));
    Ok(executor.apply(&steps).await?)
}

async fn remove_from_host_end(
    node: &mut Netlink,
    host_end: &IfName,
    addresses: &[IpAddr],
) -> Result<(), NetlinkError> {
    let present = read_host_end(node, host_end).await?;
    let Some(link) = present.link(host_end) else { return Ok(()) };
    for route in present.routes.iter().filter(|r| addresses.iter().any(|a| r.dst == IpNet::from(*a))) {
        debug!(step = %Step::DeleteRoute { namespace: Namespace::Node, route: route.clone() }, "deleting route");
        if let Some(route) = route.with_dev(|_| Some(link.index)) {
            node.delete_route(&route).await?;
        }
    }
    for neighbor in present.neighbors.iter().filter(|n| addresses.contains(&n.address)) {
        node.delete_neighbor(link.index, neighbor.address).await?;
    }
    Ok(())
}
