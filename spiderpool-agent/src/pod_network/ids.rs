//! Ids of NICs that no pod of the inventory has and that are not free either.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use spiderpool_dataplane::NicsOrigin;

/// Why an id is not given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub(crate) enum ReservedId {
    /// The maps have an entry that the inventory does not know, because it was lost. The NIC's pod may still run, so
    /// entry and profile are left as they are, until the node starts anew.
    Orphaned {
        /// The entry's profile.
        profile: u16,
    },
    /// The NIC is gone; its entry waits to be removed.
    RetiringNic,
    /// The pod is gone, and this was its cluster NIC: the pod's flows wait to be removed too.
    RetiringPod,
}

/// An entry that an earlier agent left in the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundNic {
    /// Its NIC id.
    pub id: u16,
    /// Its pod's id.
    pub pod: u16,
    /// Its profile.
    pub profile: u16,
}

/// What becomes of the ids that are reserved or found in the maps, once maps and inventory are compared.
///
/// `assigned` are those of the inventory's pods; `lost` says that there may be more of them. An orphaned id need not be
/// found: programs of its pod may run with a map that has been replaced since, and share the others.
pub(super) fn compare(
    reserved: &BTreeMap<u16, ReservedId>,
    assigned: &BTreeSet<u16>,
    lost: bool,
    found: &[FoundNic],
    origin: NicsOrigin,
) -> BTreeMap<u16, ReservedId> {
    // Of a retiring id the entry may be removed already, and its flows not.
    let is_kept = |why: &ReservedId| match why {
        ReservedId::Orphaned { .. } => origin != NicsOrigin::New,
        ReservedId::RetiringNic | ReservedId::RetiringPod => true,
    };
    let kept = reserved.iter().filter(|(_, why)| is_kept(why));
    let mut next: BTreeMap<u16, ReservedId> = kept.map(|(id, why)| (*id, *why)).collect();
    for nic in found.iter().filter(|nic| !assigned.contains(&nic.id)) {
        next.entry(nic.id).or_insert(if lost {
            ReservedId::Orphaned { profile: nic.profile }
        } else if nic.id == nic.pod {
            ReservedId::RetiringPod
        } else {
            ReservedId::RetiringNic
        });
    }
    next
}

/// The next free id behind the last one that was given out, so that an id rests long before it comes again.
pub(super) fn next_id(last: u16, used: &BTreeSet<u16>, max: u16) -> Option<u16> {
    (last.saturating_add(1)..=max).chain(1..=last.min(max)).find(|id| !used.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: [FoundNic; 3] = [
        FoundNic { id: 1, pod: 1, profile: 4 },
        FoundNic { id: 2, pod: 1, profile: 4 },
        FoundNic { id: 7, pod: 6, profile: 5 },
    ];

    #[test]
    fn an_entry_that_no_pod_has_is_retired_with_its_flows() {
        let next = compare(&BTreeMap::new(), &[7].into(), false, &FOUND, NicsOrigin::Kept);
        assert_eq!(next, [(1, ReservedId::RetiringPod), (2, ReservedId::RetiringNic)].into());
    }

    #[test]
    fn entries_of_a_lost_inventory_are_orphaned_and_stay_so_until_the_maps_are_new() {
        let orphaned = |profile| ReservedId::Orphaned { profile };
        let first = compare(&BTreeMap::new(), &BTreeSet::new(), true, &FOUND, NicsOrigin::Kept);
        assert_eq!(first, [(1, orphaned(4)), (2, orphaned(4)), (7, orphaned(5))].into());
        let again = |found, origin| compare(&first, &BTreeSet::new(), false, found, origin);
        assert_eq!(again(&FOUND[..], NicsOrigin::Kept), first);
        assert_eq!(again(&[], NicsOrigin::New), BTreeMap::new());
    }

    #[test]
    fn orphaned_ids_outlive_a_map_that_is_replaced() {
        let orphaned = [(7, ReservedId::Orphaned { profile: 5 })].into();
        let replaced = compare(&orphaned, &BTreeSet::new(), false, &[], NicsOrigin::Replaced);
        assert_eq!(replaced, orphaned);
        // The next start keeps the map that took its place.
        assert_eq!(compare(&replaced, &BTreeSet::new(), false, &[], NicsOrigin::Kept), orphaned);
    }

    #[test]
    fn a_retiring_pod_stays_reserved_for_its_flows_when_its_entry_is_removed() {
        let retiring = [(1, ReservedId::RetiringPod), (3, ReservedId::RetiringNic)].into();
        assert_eq!(compare(&retiring, &BTreeSet::new(), false, &[], NicsOrigin::Kept), retiring);
        assert_eq!(compare(&retiring, &[2, 7].into(), false, &FOUND, NicsOrigin::Kept), retiring);
    }

    #[test]
    fn the_next_id_comes_after_the_last_and_wraps() {
        assert_eq!(next_id(3, &[4].into(), 6), Some(5));
        assert_eq!(next_id(6, &[1].into(), 6), Some(2));
        assert_eq!(next_id(9, &(1..=6).collect(), 6), None);
    }
}
