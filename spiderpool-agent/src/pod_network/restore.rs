//! What other programs on the node or in the pod have changed of a running pod's network, found and put right.

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::{Nic, NicRole};
use spiderpool_core::dataplane::PortRange;
use spiderpool_core::names::IfName;
use spiderpool_net::block_on;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::NetNs;
use spiderpool_net::sysctl;
use tracing::warn;

use super::netns::{self, NamespaceError};
use super::reconcile::{Reconciled, reconcile};
use super::record::{NicRecord, PodRecord};
use super::{node_link, route_hints};
use crate::destinations::Destinations;

/// A pod that runs, as it was found.
#[derive(Debug)]
pub(crate) struct PodFound {
    /// The pod, without the NICs that have no address.
    pub pod: PodRecord,
    /// Its namespace.
    pub netns: NetNs,
    /// Registered NICs that it does not have any more.
    pub missing: Vec<IfName>,
    /// Underlay NICs with none of their registered addresses: of a DEL these go first, and the registration last.
    pub without_address: Vec<IfName>,
    /// Its `ip_local_port_range`, if it could be read.
    pub ports: Option<PortRange>,
    has_node_link: bool,
}

impl PodFound {
    /// Puts node link and route hints right.
    pub(crate) fn restore(&self, destinations: &Destinations) -> Reconciled {
        // Without its node link there is nothing to reconcile.
        if self.has_node_link {
            reconcile(&self.netns, &self.pod, destinations)
        } else {
            Reconciled::default()
        }
    }
}

/// Looks at a pod; `None` for one that does not run.
pub(super) fn find(pod: &PodRecord) -> Result<Option<PodFound>, NamespaceError> {
    let Some((netns, has_node_link)) = find_namespace(pod)? else { return Ok(None) };
    let (missing, without_address) = block_on(async {
        let mut netlink = netns::connect(&netns)?;
        let (mut missing, mut without_address) = (Vec::new(), Vec::new());
        for nic in pod.nics.iter().map(|record| &record.nic) {
            match state(&mut netlink, nic).await? {
                NicState::Whole => {}
                NicState::Gone => missing.push(nic.name.clone()),
                NicState::WithoutAddress => without_address.push(nic.name.clone()),
            }
        }
        Ok::<_, NetlinkError>((missing, without_address))
    })?;
    let mut pod = pod.clone();
    // Another pod may have its addresses by now.
    pod.nics.retain(|record| !without_address.contains(&record.nic.name));
    let ports = read_ports(&netns);
    Ok(Some(PodFound { pod, netns, missing, without_address, ports, has_node_link }))
}

/// A pod may set it at any time.
pub(crate) fn read_ports(netns: &NetNs) -> Option<PortRange> {
    let text = netns.run(|| sysctl::read("net/ipv4/ip_local_port_range")).ok()?.ok()?;
    PortRange::parse(&text)
}

enum NicState {
    Whole,
    Gone,
    WithoutAddress,
}

/// By its index: KubeVirt gives a NIC another name and MAC, and name and addresses to a dummy beside it.
async fn state(netlink: &mut Netlink, nic: &Nic) -> Result<NicState, NetlinkError> {
    if netlink.link_by_index(nic.ifindex).await?.is_none() {
        return Ok(NicState::Gone);
    }
    if nic.role != NicRole::Underlay {
        return Ok(NicState::Whole);
    }
    let by_name = netlink.link_by_name(&nic.name).await?.map(|link| link.index);
    for index in [Some(nic.ifindex), by_name.filter(|index| *index != nic.ifindex)].into_iter().flatten() {
        let present = netlink.addresses(Some(index)).await?;
        let is_present = |net: &IpNet| present.iter().any(|a| a.dev == index && a.net.addr() == net.addr());
        if nic.addresses.iter().any(is_present) {
            return Ok(NicState::Whole);
        }
    }
    Ok(NicState::WithoutAddress)
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
    Ok(netns::open_by_first_nic(pod)?.map(|netns| (netns, false)))
}
