//! Attaches the programs to the pod's NICs.

use spiderpool_api::agent::dataplane::{Nic, RegisteredNics};
use spiderpool_core::coordinator::{NODE_LINK, NamespaceState, NodeLink};
use spiderpool_core::names::IfName;
use spiderpool_core::net::Medium;
use spiderpool_dataplane::{AttachedFilters, Programs};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::tc::Direction;
use tracing::debug;

use crate::error::{ConfigError, PluginError};

/// Attaches both programs to every NIC, each with the id that the agent gave it.
pub(super) async fn attach(
    attached: &mut AttachedFilters,
    netlink: &mut Netlink,
    nics: &[Nic],
    answer: &RegisteredNics,
    programs: &Programs,
) -> Result<(), PluginError> {
    for nic in nics {
        let id = id_of(&nic.name, answer)?;
        debug!(nic = %nic.name, id, "attaching programs");
        attached.attach(netlink, nic.ifindex, id, &programs.nic).await?;
    }
    Ok(())
}

/// Attaches both programs to the host end of the node link, with the id of its pod end. To be rolled back they need
/// nothing: they go with a link that is new, and belong to one that was there.
pub(super) async fn attach_host_end(
    node: &mut Netlink,
    ends: &NodeLink,
    answer: &RegisteredNics,
    programs: &Programs,
) -> Result<(), PluginError> {
    let id = id_of(&ends.pod, answer)?;
    let link = node.link_by_name(&ends.host).await?;
    let link = link.ok_or_else(|| PluginError::NoDevice(ends.host.clone()))?;
    Ok(AttachedFilters::default().attach(node, link.index, id, &programs.host_end).await?)
}

fn id_of(nic: &IfName, answer: &RegisteredNics) -> Result<u16, ConfigError> {
    let id = answer.nics.iter().find(|n| n.name == *nic).map(|n| n.id).filter(|id| *id != 0);
    id.ok_or_else(|| ConfigError::NoNicId(nic.clone()))
}

/// The underlay NICs, but `nic`, that have our programs.
pub(super) async fn other_underlay_nics(
    netlink: &mut Netlink,
    pod: &NamespaceState,
    nic: &IfName,
    cluster_nic: &IfName,
) -> Result<Vec<IfName>, NetlinkError> {
    let mut found = Vec::new();
    for link in &pod.links {
        let is_candidate = link.medium == Medium::Ethernet
            && link.name != *nic
            && link.name != *cluster_nic
            && link.name.as_str() != NODE_LINK;
        if is_candidate && netlink.own_filter(link.index, Direction::Egress).await?.is_some() {
            found.push(link.name.clone());
        }
    }
    Ok(found)
}
