//! Finding a registered pod's network namespace again.

use spiderpool_api::agent::dataplane::{Nic, NicRole};
use spiderpool_core::coordinator::{host_end_name, node_link_macs};
use spiderpool_net::block_on;
use spiderpool_net::executor::ApplyError;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::{NetNs, NetNsError};
use thiserror::Error;

use super::record::{NetnsIdentity, PodRecord};

/// A pod's network namespace cannot be read or changed.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// It cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetNsError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel refused a step of a plan.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// The identity of the namespace at a path.
pub(crate) fn identity(netns: &NetNs) -> Result<NetnsIdentity, NetNsError> {
    let id = netns.id()?;
    Ok(NetnsIdentity { dev: id.dev, inode: id.inode })
}

/// The pod's namespace, if it is still the one that was registered. Path and inode may both have come again for a
/// later sandbox: the NIC by which a sandbox is known identifies it.
pub(crate) fn open(pod: &PodRecord) -> Result<Option<NetNs>, NamespaceError> {
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
    let link = block_on(async { netns.netlink()?.link_by_name(name).await })?;
    Ok(link.is_some_and(|link| link.index == *ifindex && link.mac == Some(*mac)).then_some(netns))
}

/// Where a pod of the inventory is.
pub(crate) enum Presence {
    /// It runs, in this namespace.
    Here(NetNs),
    /// It runs, and its namespace cannot be reached.
    Hidden,
    /// Its namespace has ended.
    Gone,
}

/// Looks for a pod's namespace.
pub(crate) fn presence(pod: &PodRecord) -> Result<Presence, NamespaceError> {
    Ok(match open(pod)? {
        Some(netns) => Presence::Here(netns),
        None if has_host_end(pod)? => Presence::Hidden,
        None => Presence::Gone,
    })
}

/// Whether the node's end of the pod's node link is there, which ends with the pod's namespace.
fn has_host_end(pod: &PodRecord) -> Result<bool, NamespaceError> {
    let Ok(name) = host_end_name(pod.container_id.as_str()) else { return Ok(false) };
    let (mac, _) = node_link_macs(pod.container_id.as_str());
    let link = block_on(async { Netlink::open()?.link_by_name(&name).await })?;
    Ok(link.is_some_and(|link| link.mac == Some(mac)))
}
