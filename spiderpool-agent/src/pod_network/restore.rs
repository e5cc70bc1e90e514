//! What other programs on the node or in the pod have changed of a running pod's network, put right.

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::NicRole;
use spiderpool_core::coordinator::Step;
use spiderpool_core::names::IfName;
use spiderpool_net::block_on;
use spiderpool_net::netns::NetNs;
use tracing::warn;

use super::netns::{self, NamespaceError};
use super::reconcile::reconcile;
use super::record::{NicRecord, PodRecord};
use super::{node_link, route_hints};
use crate::destinations::Destinations;

/// A pod that runs, as it was found.
#[derive(Debug)]
pub(crate) struct PodFound<'a> {
    /// The pod.
    pub pod: &'a PodRecord,
    /// Its namespace.
    pub netns: NetNs,
    /// What was put right.
    pub steps: Vec<Step>,
    /// Registered NICs that it does not have any more.
    pub missing: Vec<IfName>,
}

/// Puts right what can be; `None` for a pod that does not run, or cannot be looked at.
pub(super) fn restore<'a>(pod: &'a PodRecord, destinations: &Destinations) -> Option<PodFound<'a>> {
    match try_restore(pod, destinations) {
        Ok(found) => found,
        Err(error) => {
            warn!(%error, container_id = %pod.container_id, pod = %pod.pod, "pod's network cannot be read");
            None
        }
    }
}

fn try_restore<'a>(
    pod: &'a PodRecord,
    destinations: &Destinations,
) -> Result<Option<PodFound<'a>>, NamespaceError> {
    let Some((netns, has_node_link)) = find_namespace(pod)? else { return Ok(None) };
    let Some(missing) = block_on(missing_nics(&netns, pod))? else { return Ok(None) };
    // Without its node link there is nothing to reconcile.
    let steps = if has_node_link { reconcile(&netns, pod, destinations) } else { Vec::new() };
    Ok(Some(PodFound { pod, netns, steps, missing }))
}

/// Removes routes and neighbors that lead to the NICs that the pod has not any more, and the route hints of a pod that
/// has none; answers these NICs, and the pod's namespace if it is still there.
pub(super) fn undo(before: &PodRecord, after: Option<&PodRecord>) -> Option<(NetNs, Vec<NicRecord>)> {
    let is_gone =
        |record: &&NicRecord| after.is_none_or(|pod| pod.nics.iter().all(|other| other.id != record.id));
    let gone: Vec<NicRecord> = before.nics.iter().filter(is_gone).cloned().collect();
    let container_id = &before.container_id;
    for record in gone.iter().filter(|record| record.nic.role == NicRole::Underlay) {
        if let Err(error) = node_link::remove_nic(before, &record.nic.name) {
            warn!(%error, %container_id, nic = %record.nic.name, "node link still leads to a NIC that is gone");
        }
    }
    let netns = match find_namespace(before) {
        Ok(netns) => netns?.0,
        Err(error) => {
            warn!(%error, %container_id, pod = %before.pod, "pod's network cannot be read");
            return None;
        }
    };
    if after.is_none()
        && let Err(error) = route_hints::refresh(&netns, before, &[], &[])
    {
        warn!(%error, %container_id, pod = %before.pod, "route hints cannot be removed");
    }
    Some((netns, gone))
}

/// The pod's namespace, and whether its node link is in it.
fn find_namespace(pod: &PodRecord) -> Result<Option<(NetNs, bool)>, NamespaceError> {
    if let Some(netns) = netns::open(pod)? {
        return Ok(Some((netns, true)));
    }
    Ok(netns::open_by_cluster_nic(pod)?.map(|netns| (netns, false)))
}

/// `None` while a DEL goes on, which takes away a NIC's addresses first and its registration last.
async fn missing_nics(netns: &NetNs, pod: &PodRecord) -> Result<Option<Vec<IfName>>, NamespaceError> {
    let mut netlink = netns.netlink()?;
    let mut missing = Vec::new();
    for nic in pod.nics.iter().map(|record| &record.nic) {
        let link = netlink.link_by_name(&nic.name).await?;
        let Some(link) = link.filter(|link| link.index == nic.ifindex) else {
            missing.push(nic.name.clone());
            continue;
        };
        if nic.role == NicRole::Underlay {
            let present = netlink.addresses(Some(link.index)).await?;
            let is_present =
                |net: &IpNet| present.iter().any(|a| a.dev == link.index && a.net.addr() == net.addr());
            if !nic.addresses.iter().any(is_present) {
                return Ok(None);
            }
        }
    }
    Ok(Some(missing))
}
