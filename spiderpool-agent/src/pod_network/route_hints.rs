//! Route hints of running pods, renewed when destinations change.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::NicRole;
use spiderpool_core::coordinator::Step;
use spiderpool_core::dataplane::{HintInputs, plan_route_hints};
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Address, Route};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use tracing::debug;

use super::netns::NamespaceError;
use super::record::PodRecord;

/// Makes the route hints what they should be for these destinations; answers how many routes changed.
pub(super) fn refresh(
    netns: &NetNs,
    pod: &PodRecord,
    cidrs: &[IpNet],
    nodes: &[IpAddr],
) -> Result<usize, NamespaceError> {
    let Some(cluster) = pod.nic(NicRole::Cluster) else { return Ok(0) };
    let mut netlink = netns.netlink()?;
    let names: BTreeMap<u32, IfName> =
        netlink.links()?.into_iter().map(|link| (link.index, link.name)).collect();
    let (addresses, routes) = read(&mut netlink, &names)?;
    let steps = plan_route_hints(&HintInputs {
        cluster_nic: &cluster.nic.name,
        addresses: &addresses,
        routes: &routes,
        cidrs,
        nodes,
    });
    let indexed = |route: &Route| {
        route.with_dev(|name| names.iter().find(|(_, known)| *known == name).map(|(index, _)| *index))
    };
    for step in &steps {
        debug!(container = %pod.container_id, %step, "route hint changes");
        match step {
            Step::AddRoute { route, .. } => {
                indexed(route).map_or(Ok(()), |route| netlink.ensure_route(&route))?;
            }
            Step::DeleteRoute { route, .. } => {
                indexed(route).map_or(Ok(()), |route| netlink.delete_route(&route))?;
            }
            _ => {}
        }
    }
    Ok(steps.len())
}

type Known = (Vec<Address<IfName>>, Vec<Route>);

fn read(netlink: &mut Netlink, names: &BTreeMap<u32, IfName>) -> Result<Known, NetlinkError> {
    let addresses = netlink.addresses(None)?.into_iter();
    let addresses =
        addresses.filter_map(|a| Some(Address { dev: names.get(&a.dev)?.clone(), net: a.net })).collect();
    let routes =
        netlink.routes()?.iter().filter_map(|route| route.with_dev(|dev| names.get(dev).cloned())).collect();
    Ok((addresses, routes))
}
