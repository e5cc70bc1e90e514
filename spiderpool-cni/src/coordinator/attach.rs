//! Attaches the programs to the pod's NICs.

use std::path::Path;

use spiderpool_api::agent::dataplane::{Nic, RegisteredNics};
use spiderpool_core::coordinator::{NODE_LINK, NamespaceState};
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
) -> Result<(), PluginError> {
    let programs = Programs::open(Path::new(&answer.programs)).map_err(PluginError::Programs)?;
    for nic in nics {
        let id = answer.nics.iter().find(|n| n.name == nic.name).map(|n| n.id).filter(|id| *id != 0);
        let id = id.ok_or_else(|| ConfigError::NoNicId(nic.name.clone()))?;
        debug!(nic = %nic.name, id, "attaching programs");
        attached.attach(netlink, nic.ifindex, id, &programs).await?;
    }
    Ok(())
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
