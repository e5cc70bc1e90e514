//! A pod's NICs in the kernel: filters attached again after a restart, route hints renewed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::{Nic, NicRole};
use spiderpool_core::coordinator::{Step, host_end_name, node_link_macs};
use spiderpool_core::dataplane::{HintInputs, plan_route_hints};
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Address, Route};
use spiderpool_dataplane::Programs;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::{NetNs, NetNsError};
use spiderpool_net::tc::{Direction, Put};
use thiserror::Error;
use tracing::debug;

use super::inventory::{NetnsIdentity, PodRecord};

/// A pod's namespace cannot be worked on.
#[derive(Debug, Error)]
pub enum AttachError {
    /// It cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetNsError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Somebody else's filter is where ours belongs.
    #[error("{direction} of {nic} has another tc filter at priority 1 handle 1: remove it")]
    ForeignFilter {
        /// The NIC.
        nic: IfName,
        /// Its side.
        direction: Direction,
    },
}

/// The identity of the namespace at a path.
pub(super) fn identity(netns: &NetNs) -> Result<NetnsIdentity, NetNsError> {
    let id = netns.id()?;
    Ok(NetnsIdentity { dev: id.dev, inode: id.inode })
}

/// The pod's namespace, if it is still the one that was registered. Path and inode may both have come again for a
/// later sandbox: the NIC by which a sandbox is known tells them apart.
pub(super) fn open(pod: &PodRecord) -> Result<Option<NetNs>, AttachError> {
    let netns = match NetNs::open(&pod.netns) {
        Ok(netns) => netns,
        Err(NetNsError::Gone { .. } | NetNsError::NotANamespace { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if identity(&netns)? != pod.netns_identity {
        return Ok(None);
    }
    let known = pod.nic(NicRole::NodeLink).or_else(|| pod.nic(NicRole::Cluster));
    let Some(Nic { name, ifindex, mac, .. }) = known.map(|record| &record.nic) else { return Ok(None) };
    let link = netns.netlink()?.link_by_name(name)?;
    Ok(link.is_some_and(|link| link.index == *ifindex && link.mac == Some(*mac)).then_some(netns))
}

/// Whether the node's end of the pod's node link is there, which ends with the pod's namespace.
pub(super) fn has_host_end(pod: &PodRecord) -> Result<bool, AttachError> {
    let Ok(name) = host_end_name(&pod.container_id) else { return Ok(false) };
    let (mac, _) = node_link_macs(&pod.container_id);
    Ok(Netlink::open()?.link_by_name(&name)?.is_some_and(|link| link.mac == Some(mac)))
}

/// Puts the programs on every NIC of the pod, in place of those that are there. NICs that are gone are skipped.
pub(super) fn attach(netns: &NetNs, pod: &PodRecord, programs: &Programs) -> Result<(), AttachError> {
    let mut netlink = netns.netlink()?;
    for record in &pod.nics {
        let link = netlink.link_by_name(&record.nic.name)?;
        let Some(link) = link.filter(|link| link.index == record.nic.ifindex) else {
            debug!(nic = %record.nic.name, container = pod.container_id, "registered NIC is gone");
            continue;
        };
        netlink.add_clsact(link.index)?;
        for direction in Direction::ALL {
            let program = match direction {
                Direction::Egress => programs.egress_fd(),
                Direction::Ingress => programs.ingress_fd(),
            };
            if netlink.put_filter(link.index, direction, program, record.id)? == Put::Taken {
                return Err(AttachError::ForeignFilter { nic: record.nic.name.clone(), direction });
            }
        }
    }
    Ok(())
}

/// Makes the route hints what they should be for these destinations; answers how many routes changed.
pub(super) fn refresh_hints(
    netns: &NetNs,
    pod: &PodRecord,
    cidrs: &[IpNet],
    nodes: &[IpAddr],
) -> Result<usize, AttachError> {
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
        debug!(container = pod.container_id, %step, "route hint changes");
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
