//! Attaches the programs to NICs: a clsact qdisc and a filter for each direction, with the NIC's id as classid.

use spiderpool_core::names::IfName;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::tc::{Direction, FilterOutcome};

use crate::Programs;

/// Programs cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Another's filter is where ours belongs.
    #[error(
        "{direction} of {nic} has another tc filter at priority 1 handle 1: remove it \
         (tc filter del dev {nic} {direction} pref 1) or use another priority for it"
    )]
    ForeignFilter {
        /// The NIC.
        nic: IfName,
        /// Its side.
        direction: Direction,
    },
}

/// The filters that were created in one namespace, by link index. Those that were only replaced are not among them.
#[derive(Debug, Default)]
pub struct AttachedFilters(Vec<(u32, Direction)>);

impl AttachedFilters {
    /// Attaches both programs to a NIC, in place of ours if they are there. After a failure one side may be attached.
    pub async fn attach(
        &mut self,
        netlink: &mut Netlink,
        nic: &IfName,
        index: u32,
        id: u16,
        programs: &Programs,
    ) -> Result<(), AttachError> {
        netlink.add_clsact(index).await?;
        for direction in Direction::ALL {
            let program = match direction {
                Direction::Ingress => programs.ingress_fd(),
                Direction::Egress => programs.egress_fd(),
            };
            match netlink.ensure_filter(index, direction, program, id).await? {
                FilterOutcome::Created => self.0.push((index, direction)),
                FilterOutcome::Replaced => {}
                FilterOutcome::Conflict => {
                    return Err(AttachError::ForeignFilter { nic: nic.clone(), direction });
                }
            }
        }
        Ok(())
    }

    /// Detaches what was created, last first, and goes on after a failure.
    pub async fn roll_back(&mut self, netlink: &mut Netlink) -> Vec<NetlinkError> {
        let mut failures = Vec::new();
        for (index, direction) in self.0.drain(..).rev() {
            failures.extend(netlink.detach_filter(index, direction).await.err());
        }
        failures
    }
}

/// Detaches both programs from a NIC.
pub async fn detach(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    for direction in Direction::ALL {
        netlink.detach_filter(index, direction).await?;
    }
    Ok(())
}
