//! DEL: works without agent, namespace and previous result, and twice. It never fails: what is left is found by
//! the agent, and a pod's end waits for nobody.

use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_core::coordinator::{
    NODE_LINK, Namespace, Place, Step, host_end_name, node_link_macs, plan_default_routes,
};
use spiderpool_core::dataplane::{HintInputs, plan_route_hints};
use spiderpool_core::names::IfName;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use spiderpool_net::tc::Direction;
use tracing::{debug, warn};

use super::NetConf;
use super::apply::Applier;
use super::attach::other_underlay_nics;
use super::register::attachment;
use super::state::{read_host_end, read_pod};
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::result_addresses;

pub(super) fn del(request: &Request, conf: &NetConf) {
    if let Err(error) = clean(request, conf) {
        warn!(%error, "not everything could be removed");
    }
    if let Err(error) = conf.client().unregister_nics(&attachment(request, &conf.base.name)) {
        warn!(%error, "registration is left to the agent's comparison");
    }
}

fn clean(request: &Request, conf: &NetConf) -> Result<(), PluginError> {
    // Named by the container: a late DEL of an old sandbox finds nothing of the new one's.
    let host_end = host_end_name(&request.container_id).map_err(|e| PluginError::Config(e.to_string()))?;
    let rest = match open_own(request) {
        Some(netns) => clean_pod(&netns, request, conf)?,
        None => Rest::Nothing,
    };
    let mut host = Netlink::open()?;
    match rest {
        Rest::Nothing => host.delete_link(&host_end)?,
        Rest::OtherNics(addresses) => remove_from_host_end(&mut host, &host_end, &addresses)?,
    }
    Ok(())
}

/// What remains of the pod.
enum Rest {
    /// No NIC of ours: the node link goes.
    Nothing,
    /// Other NICs of ours; these addresses go.
    OtherNics(Vec<IpAddr>),
}

/// The sandbox's namespace, if it is there and the node link in it says that it is this sandbox's: the path may
/// have been given to another one since.
fn open_own(request: &Request) -> Option<NetNs> {
    if request.netns.is_empty() {
        return None;
    }
    let netns = NetNs::open(&request.netns).inspect_err(|error| debug!(%error, "no namespace")).ok()?;
    let (_, pod_mac) = node_link_macs(&request.container_id);
    let link = netns.netlink().ok()?.link_by_name(&NODE_LINK.parse().ok()?).ok()??;
    if link.mac != Some(pod_mac) {
        debug!("the namespace is another sandbox's");
        return None;
    }
    Some(netns)
}

fn clean_pod(netns: &NetNs, request: &Request, conf: &NetConf) -> Result<Rest, PluginError> {
    let mut applier = Applier::new(netns)?;
    let pod = read_pod(&mut applier.pod_netlink)?;
    let first_nic = first_nic(conf);
    let mut addresses: Vec<_> = pod.usable_addresses(&request.nic);
    addresses.extend(result_addresses(&conf.base.prev_result, request.nic.as_str()));
    if let Some(link) = pod.link(&request.nic).filter(|_| request.nic != first_nic) {
        // Once its address is free, nobody may answer for it on the wire.
        applier.pod_netlink.set_down(link.index)?;
        detach(&mut applier.pod_netlink, link.index)?;
    }
    let others = other_underlay_nics(&mut applier.pod_netlink, &pod, &request.nic, &first_nic)?;
    if others.is_empty() {
        restore_cluster_nic(&mut applier, &first_nic)?;
        return Ok(Rest::Nothing);
    }
    Ok(Rest::OtherNics(addresses.iter().map(IpNet::addr).collect()))
}

fn first_nic(conf: &NetConf) -> IfName {
    let named = conf.settings.pod_default_cni_nic.parse().ok();
    named.or_else(|| "eth0".parse().ok()).unwrap_or_else(|| unreachable!("eth0 is an interface name"))
}

/// A pod that goes on living has its first NIC as the main CNI plugin made it.
fn restore_cluster_nic(applier: &mut Applier<'_>, first_nic: &IfName) -> Result<(), PluginError> {
    let pod: Namespace = read_pod(&mut applier.pod_netlink)?;
    let Some(link) = pod.link(first_nic) else { return Ok(()) };
    detach(&mut applier.pod_netlink, link.index)?;
    let mut steps: Vec<Step> = plan_route_hints(&HintInputs {
        cluster_nic: first_nic,
        addresses: &pod.addresses,
        routes: &pod.routes,
        cidrs: &[],
        nodes: &[],
    });
    steps.extend(plan_default_routes(&pod.routes, first_nic, first_nic));
    applier.apply(&steps)
}

/// A NIC without our filters is not counted when the next one goes.
fn detach(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    Direction::ALL.into_iter().try_for_each(|direction| netlink.detach_filter(index, direction))
}

fn remove_from_host_end(
    host: &mut Netlink,
    host_end: &IfName,
    addresses: &[IpAddr],
) -> Result<(), NetlinkError> {
    let Some(link) = host.link_by_name(host_end)? else { return Ok(()) };
    let present = read_host_end(host, host_end)?;
    for route in present.routes.iter().filter(|r| addresses.iter().any(|a| r.dst == IpNet::from(*a))) {
        debug!(step = %Step::DeleteRoute { place: Place::Node, route: route.clone() }, "step");
        if let Some(route) = route.with_dev(|_| Some(link.index)) {
            host.delete_route(&route)?;
        }
    }
    for neighbor in present.neighbors.iter().filter(|n| addresses.contains(&n.address)) {
        host.delete_neighbor(link.index, neighbor.address)?;
    }
    Ok(())
}
