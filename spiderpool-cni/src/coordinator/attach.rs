//! Puts the programs on the pod's NICs.

use std::path::Path;

use spiderpool_api::agent::dataplane::{Nic, RegisteredNics};
use spiderpool_core::coordinator::{NODE_LINK, Namespace};
use spiderpool_core::names::IfName;
use spiderpool_core::net::Medium;
use spiderpool_dataplane::Programs;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::tc::{Direction, Put};
use tracing::{debug, warn};

use crate::error::PluginError;

/// Filters that were not there before, to be taken off if a later step fails.
#[derive(Default)]
pub(super) struct Attached(Vec<(u32, Direction)>);

impl Attached {
    /// Attaches both programs to every NIC, each with its id.
    pub(super) fn attach(
        &mut self,
        netlink: &mut Netlink,
        nics: &[Nic],
        answer: &RegisteredNics,
    ) -> Result<(), PluginError> {
        let programs = Programs::open(Path::new(&answer.programs)).map_err(PluginError::Programs)?;
        for nic in nics {
            let id = answer.nics.iter().find(|n| n.name == nic.name).map(|n| n.id).filter(|id| *id != 0);
            let id =
                id.ok_or_else(|| PluginError::Config(format!("spiderpool-agent gave {} no id", nic.name)))?;
            debug!(nic = %nic.name, id, "attach");
            netlink.add_clsact(nic.ifindex)?;
            for direction in Direction::ALL {
                self.attach_one(netlink, nic, direction, &programs, id)?;
            }
        }
        Ok(())
    }

    fn attach_one(
        &mut self,
        netlink: &mut Netlink,
        nic: &Nic,
        direction: Direction,
        programs: &Programs,
        id: u16,
    ) -> Result<(), PluginError> {
        let program = match direction {
            Direction::Ingress => programs.ingress_fd(),
            Direction::Egress => programs.egress_fd(),
        };
        match netlink.put_filter(nic.ifindex, direction, program, id)? {
            Put::Created => self.0.push((nic.ifindex, direction)),
            // A NIC of an earlier attachment, or ADD again.
            Put::Replaced => {}
            Put::Taken => return Err(PluginError::ForeignFilter { nic: nic.name.clone(), direction }),
        }
        Ok(())
    }

    /// Takes off what was put on.
    pub(super) fn undo(&mut self, netlink: &mut Netlink) {
        for (index, direction) in self.0.drain(..).rev() {
            if let Err(error) = netlink.detach_filter(index, direction) {
                warn!(%error, "filter cannot be taken off");
            }
        }
    }
}

/// The underlay NICs, but `nic`, that have our programs.
pub(super) fn other_underlay_nics(
    netlink: &mut Netlink,
    pod: &Namespace,
    nic: &IfName,
    cluster_nic: &IfName,
) -> Result<Vec<IfName>, NetlinkError> {
    let mut found = Vec::new();
    for link in &pod.links {
        let is_candidate = link.medium == Medium::Ethernet
            && link.name != *nic
            && link.name != *cluster_nic
            && link.name.as_str() != NODE_LINK;
        if is_candidate && netlink.own_filter(link.index, Direction::Egress)?.is_some() {
            found.push(link.name.clone());
        }
    }
    Ok(found)
}
