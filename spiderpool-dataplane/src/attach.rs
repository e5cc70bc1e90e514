//! Attaches the programs to NICs: a clsact qdisc and a filter for each direction, with the NIC's id as classid.

use std::io;

use spiderpool_core::dataplane::FiltersAhead;
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::tc::{Direction, Filter, FilterOutcome};

use crate::ProgramPair;

/// Programs cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel does not say which program is attached.
    #[error("ids of the programs: {0}")]
    Program(#[from] io::Error),
}

/// The filters that were created in one namespace, by link index. Those that were only replaced are not among them.
#[derive(Debug, Default)]
pub struct AttachedFilters(Vec<(u32, Direction)>);

impl AttachedFilters {
    /// Attaches both programs to a link, in place of ours if they are there. After a failure one side may be attached.
    pub async fn attach(
        &mut self,
        netlink: &mut Netlink,
        index: u32,
        id: u16,
        programs: &ProgramPair,
    ) -> Result<(), AttachError> {
        netlink.add_clsact(index).await?;
        // Egress first: at a host end it records what ingress lets through.
        for direction in [Direction::Egress, Direction::Ingress] {
            match netlink.ensure_filter(index, direction, programs.fd(direction), id).await? {
                FilterOutcome::Created => self.0.push((index, direction)),
                FilterOutcome::Replaced => {}
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

/// The filters of a NIC after [`repair`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repaired {
    /// How many were attached again.
    pub restored: usize,
    /// Where filters of others come before ours.
    pub ahead: FiltersAhead,
}

/// Attaches what somebody has detached from a NIC or replaced. Filters of others stay: ours goes behind them.
pub async fn repair(
    netlink: &mut Netlink,
    index: u32,
    id: u16,
    programs: &ProgramPair,
) -> Result<Repaired, AttachError> {
    let mut repaired = Repaired::default();
    for direction in Direction::ALL {
        let program = programs.id(direction)?;
        let is_intact = |filter: &Filter| {
            filter.is_ours(direction) && filter.program == program && filter.classid == u32::from(id)
        };
        let mut present = netlink.filters(index, direction).await?;
        if !present.iter().any(is_intact) {
            netlink.add_clsact(index).await?;
            netlink.ensure_filter(index, direction, programs.fd(direction), id).await?;
            repaired.restored += 1;
            present = netlink.filters(index, direction).await?;
        }
        let own = present.iter().position(is_intact);
        let (before, after) = present.split_at(own.unwrap_or(present.len()));
        // Of an agent or plugin that attached ours while the place of another was free.
        for twin in
            before.iter().chain(after.iter().skip(1)).filter(|filter| filter.is_ours_on(direction, id))
        {
            netlink.detach_at(index, direction, twin.priority).await?;
        }
        let is_behind = before.iter().any(|filter| !filter.is_ours_on(direction, id));
        match direction {
            Direction::Ingress => repaired.ahead.ingress = is_behind,
            Direction::Egress => repaired.ahead.egress = is_behind,
        }
    }
    Ok(repaired)
}

/// Detaches both programs from a NIC where they have this id. A NIC that is gone is not an error.
pub async fn detach_id(netlink: &mut Netlink, index: u32, id: u16) -> Result<(), NetlinkError> {
    for direction in Direction::ALL {
        let present = netlink.filters(index, direction).await?;
        let is_its = |filter: &&Filter| filter.is_ours_on(direction, id) && filter.classid == u32::from(id);
        for filter in present.iter().filter(is_its) {
            netlink.detach_at(index, direction, filter.priority).await?;
        }
    }
    Ok(())
}

/// Detaches both programs from a NIC.
pub async fn detach(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    for direction in Direction::ALL {
        netlink.detach_filter(index, direction).await?;
    }
    Ok(())
}
