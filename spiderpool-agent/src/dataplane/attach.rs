//! The programs on a pod's NICs, attached again after a restart of the agent.

use spiderpool_core::names::IfName;
use spiderpool_dataplane::Programs;
use spiderpool_net::netlink::NetlinkError;
use spiderpool_net::netns::{NetNs, NetNsError};
use spiderpool_net::tc::{Direction, Put};
use thiserror::Error;
use tracing::debug;

use crate::pod_network::PodRecord;

/// Programs cannot be attached to a pod's NIC.
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

/// Puts the programs on every NIC of the pod, in place of those that are there. NICs that are gone are skipped.
pub(super) fn attach(netns: &NetNs, pod: &PodRecord, programs: &Programs) -> Result<(), AttachError> {
    let mut netlink = netns.netlink()?;
    for record in &pod.nics {
        let link = netlink.link_by_name(&record.nic.name)?;
        let Some(link) = link.filter(|link| link.index == record.nic.ifindex) else {
            debug!(nic = %record.nic.name, container = %pod.container_id, "registered NIC is gone");
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
