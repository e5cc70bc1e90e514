//! The programs on the NICs of running pods: attached again where others have detached them, and watched for whether
//! packets still reach them.

use std::collections::HashMap;

use spiderpool_api::agent::dataplane::NicRole;
use spiderpool_core::dataplane::{FiltersAhead, NicCounts, is_starved};
use spiderpool_core::names::IfName;
use spiderpool_core::net::Link;
use spiderpool_dataplane::{Dataplane, ProgramPair, Reason, detach_id, repair as repair_nic};
use spiderpool_net::block_on;
use spiderpool_net::netlink::Netlink;
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
    /// The host end of the node link, where its packets do not reach our filters any more and it was set down.
    pub host_end_down: Option<IfName>,
}

/// Where our filters with a NIC's id are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// On the NIC.
    Nic,
    /// On the host end of the node link, whose pod end is the NIC.
    HostEnd,
}

/// What was counted at the last look, by NIC id.
#[derive(Debug, Default)]
pub(super) struct Reach(HashMap<(u16, Place), Seen>);

#[derive(Debug)]
struct Seen {
    counts: NicCounts,
    ahead: FiltersAhead,
    /// Packets do not reach our filters, and it has been said.
    starved: bool,
}

impl Reach {
    /// The id's counters begin again.
    pub(super) fn forget(&mut self, id: u16) {
        self.forget_at(id, Place::Nic);
        self.forget_at(id, Place::HostEnd);
    }

    fn forget_at(&mut self, id: u16, place: Place) {
        self.0.remove(&(id, place));
    }

    /// Whether packets do not reach our filters.
    fn is_starved(&self, id: u16, place: Place) -> bool {
        self.0.get(&(id, place)).is_some_and(|seen| seen.starved)
    }

    /// Whether packets have ceased to reach our filters since the last look.
    fn look(&mut self, id: u16, place: Place, counts: NicCounts, ahead: FiltersAhead) -> bool {
        let Some(last) = self.0.get_mut(&(id, place)) else {
            self.0.insert((id, place), Seen { counts, ahead, starved: false });
            return false;
        };
        let Some(since) = counts.since(last.counts) else {
            self.forget_at(id, place);
            return false;
        };
        if last.ahead != ahead && last.starved {
            // What came before our filters is gone, or others have come: begins anew.
            self.forget_at(id, place);
            return false;
        }
        let starved = is_starved(since, ahead);
        if !starved && since.sent.saturating_add(since.received) < 100 {
            return false; // too few for a verdict: counted on
        }
        let begins = starved && !last.starved;
        *last = Seen { counts, ahead, starved };
        begins
    }
}

/// Attaches what is missing on the pod's NICs and on the host end of its node link. Those that are gone are skipped.
pub(super) fn repair(
    netns: &NetNs,
    pod: &PodRecord,
    maps: &Dataplane,
    reach: &mut Reach,
) -> Result<FiltersFound, DataplaneError> {
    block_on(async {
        let mut found = FiltersFound::default();
        if let Some(record) = pod.nic(NicRole::NodeLink) {
            repair_host_end(pod, record.id, maps, reach, &mut found).await?;
        }
        let mut netlink = netns::connect(netns)?;
        for record in &pod.nics {
            let Some(link) = netlink.link_by_index(record.nic.ifindex).await? else { continue };
            let (id, place, programs) = (record.id, Place::Nic, &maps.programs().nic);
            let filters = Filters { id, place, programs };
            let repaired = repair_link(&mut netlink, &link, filters, maps, reach).await?;
            found.restored += repaired.restored;
            if repaired.starved {
                found.starved.push(record.nic.name.clone());
            }
        }
        Ok(found)
    })
}

/// Of the host end more depends: the pod could reach by it whatever the default network's policies deny. So it is
/// down while packets of the pod come through that our filter has not seen.
async fn repair_host_end(
    pod: &PodRecord,
    id: u16,
    maps: &Dataplane,
    reach: &mut Reach,
    found: &mut FiltersFound,
) -> Result<(), DataplaneError> {
    let mut node = Netlink::open()?;
    let Some(link) = netns::host_end(&mut node, pod).await? else { return Ok(()) };
    let filters = Filters { id, place: Place::HostEnd, programs: &maps.programs().host_end };
    let repaired = repair_link(&mut node, &link, filters, maps, reach).await?;
    found.restored += repaired.restored;
    if reach.is_starved(id, Place::HostEnd) && link.up {
        node.set_down(link.index).await?;
    }
    found.host_end_down = repaired.starved.then_some(link.name);
    Ok(())
}

/// Our filters on one link.
#[derive(Clone, Copy)]
struct Filters<'a> {
    id: u16,
    place: Place,
    programs: &'a ProgramPair,
}

struct RepairedLink {
    restored: usize,
    starved: bool,
}

async fn repair_link(
    netlink: &mut Netlink,
    link: &Link,
    filters: Filters<'_>,
    maps: &Dataplane,
    reach: &mut Reach,
) -> Result<RepairedLink, DataplaneError> {
    let Filters { id, place, programs } = filters;
    let repaired = repair_nic(netlink, link.index, id, programs).await?;
    if repaired.restored > 0 {
        reach.forget_at(id, place);
        return Ok(RepairedLink { restored: repaired.restored, starved: false });
    }
    let Some((received, sent)) = netlink.packets(link.index).await? else {
        return Ok(RepairedLink { restored: 0, starved: false });
    };
    let stats = maps.stats(id)?;
    let count = |counts: fn(Reason) -> bool| {
        stats.iter().filter(|(reason, ..)| counts(*reason)).map(|(_, packets, _)| packets).sum()
    };
    let (counts, ahead) = match place {
        Place::Nic => {
            let seen = count(|reason| !reason.is_at_host_end());
            // A physical NIC counts the packets on the wire, our filters those that the kernel has joined.
            let ahead = if link.kind.is_empty() { FiltersAhead::default() } else { repaired.ahead };
            (NicCounts { received, sent, seen }, ahead)
        }
        // What goes to the pod matters less.
        Place::HostEnd => {
            let seen = count(Reason::is_from_pod);
            let ahead = FiltersAhead { egress: false, ..repaired.ahead };
            (NicCounts { received, sent: 0, seen }, ahead)
        }
    };
    let starved = reach.look(id, place, counts, ahead);
    Ok(RepairedLink { restored: 0, starved })
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
        let mut look = |packets, seen| {
            reach.look(7, Place::Nic, NicCounts { received: packets, sent: packets, seen }, ahead)
        };
        assert!(!look(1000, 2000));
        assert!(!look(2000, 4000));
        assert!(!look(2005, 4000), "too few packets");
        assert!(look(3000, 4000));
        assert!(!look(4000, 4000), "said");
        assert!(!look(5000, 6000));
        assert!(look(6000, 6000));
    }
}
