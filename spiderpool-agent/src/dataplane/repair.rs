//! The programs on the NICs of running pods: attached again where others have detached them, and watched for whether
//! packets still reach them.

use std::collections::HashMap;

use spiderpool_core::dataplane::{FiltersAhead, NicCounts, is_starved};
use spiderpool_core::names::IfName;
use spiderpool_dataplane::{Dataplane, detach_id, repair as repair_nic};
use spiderpool_net::block_on;
use spiderpool_net::netns::NetNs;

use super::error::DataplaneError;
use crate::pod_network::{NicRecord, PodRecord, netns};

/// What was found on a pod's NICs.
#[derive(Debug, Default)]
pub(crate) struct FiltersFound {
    /// How many filters were attached again.
    pub restored: usize,
    /// NICs whose packets do not reach our filters any more, since this look.
    pub starved: Vec<IfName>,
}

/// What was counted at the last look, by NIC id.
#[derive(Debug, Default)]
pub(super) struct Reach(HashMap<u16, Seen>);

#[derive(Debug)]
struct Seen {
    counts: NicCounts,
    /// Packets do not reach our filters, and it has been said.
    starved: bool,
}

impl Reach {
    /// The id's counters begin again.
    pub(super) fn forget(&mut self, id: u16) {
        self.0.remove(&id);
    }

    /// Whether packets have ceased to reach our filters since the last look.
    fn look(&mut self, id: u16, counts: NicCounts, ahead: FiltersAhead) -> bool {
        let Some(last) = self.0.get_mut(&id) else {
            self.0.insert(id, Seen { counts, starved: false });
            return false;
        };
        let Some(since) = counts.since(last.counts) else {
            self.forget(id);
            return false;
        };
        let starved = is_starved(since, ahead);
        if !starved && since.sent.saturating_add(since.received) < 100 {
            return false; // too few for a verdict: counted on
        }
        let begins = starved && !last.starved;
        *last = Seen { counts, starved };
        begins
    }
}

/// Attaches what is missing on the pod's NICs. Those that are gone are skipped.
pub(super) fn repair(
    netns: &NetNs,
    pod: &PodRecord,
    maps: &Dataplane,
    reach: &mut Reach,
) -> Result<FiltersFound, DataplaneError> {
    block_on(async {
        let mut netlink = netns::connect(netns)?;
        let mut found = FiltersFound::default();
        for record in &pod.nics {
            let Some(link) = netlink.link_by_index(record.nic.ifindex).await? else { continue };
            let repaired = repair_nic(&mut netlink, link.index, record.id, maps.programs()).await?;
            found.restored += repaired.restored;
            if repaired.restored > 0 {
                reach.forget(record.id);
                continue;
            }
            let Some((received, sent)) = netlink.packets(link.index).await? else { continue };
            let seen = maps.stats(record.id)?.iter().map(|(_, packets, _)| packets).sum();
            // A physical NIC counts the packets on the wire, our filters those that the kernel has joined.
            let ahead = if link.kind.is_empty() { FiltersAhead::default() } else { repaired.ahead };
            if reach.look(record.id, NicCounts { received, sent, seen }, ahead) {
                found.starved.push(record.nic.name.clone());
            }
        }
        Ok(found)
    })
}

/// Detaches our filters from these NICs where they have the NIC's id.
pub(super) fn detach(netns: &NetNs, nics: &[NicRecord]) -> Result<(), DataplaneError> {
    block_on(async {
        let mut netlink = netns::connect(netns)?;
        for NicRecord { id, nic } in nics {
            detach_id(&mut netlink, nic.ifindex, *id).await?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_that_our_filters_see_nothing_of_is_said_once_until_they_see_it_again() {
        let (mut reach, ahead) = (Reach::default(), FiltersAhead { ingress: true, egress: true });
        let mut look =
            |packets, seen| reach.look(7, NicCounts { received: packets, sent: packets, seen }, ahead);
        assert!(!look(1000, 2000));
        assert!(!look(2000, 4000));
        assert!(!look(2005, 4000), "too few packets");
        assert!(look(3000, 4000));
        assert!(!look(4000, 4000), "said");
        assert!(!look(5000, 6000));
        assert!(look(6000, 6000));
    }
}
