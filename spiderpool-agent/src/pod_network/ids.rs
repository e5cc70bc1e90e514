//! Ids of NICs that no pod of the inventory has and that are not free either.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Why an id is not given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub(crate) enum ReservedId {
    /// The maps have an entry that the inventory does not know, because it was lost. The NIC's pod may still run, so
    /// entry and profile are left as they are.
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
/// `assigned` are those of the inventory's pods; `lost` says that there may be more of them.
pub(super) fn compare(
    reserved: &BTreeMap<u16, ReservedId>,
    assigned: &BTreeSet<u16>,
    lost: bool,
    found: &[FoundNic],
) -> BTreeMap<u16, ReservedId> {
    // Its entry may be removed already, and its flows not.
    let retiring = reserved.iter().filter(|(_, why)| !matches!(why, ReservedId::Orphaned { .. }));
    let mut next: BTreeMap<u16, ReservedId> = retiring.map(|(id, why)| (*id, *why)).collect();
    for nic in found.iter().filter(|nic| !assigned.contains(&nic.id)) {
        let orphaned = lost || matches!(reserved.get(&nic.id), Some(ReservedId::Orphaned { .. }));
        next.entry(nic.id).or_insert(if orphaned {
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
        let next = compare(&BTreeMap::new(), &[7].into(), false, &FOUND);
        assert_eq!(next, [(1, ReservedId::RetiringPod), (2, ReservedId::RetiringNic)].into());
    }

    #[test]
    fn entries_of_a_lost_inventory_are_orphaned_and_stay_so_while_they_exist() {
        let orphaned = |profile| ReservedId::Orphaned { profile };
        let first = compare(&BTreeMap::new(), &BTreeSet::new(), true, &FOUND);
        assert_eq!(first, [(1, orphaned(4)), (2, orphaned(4)), (7, orphaned(5))].into());
        assert_eq!(
            compare(&first, &BTreeSet::new(), false, &FOUND[..2]),
            [(1, orphaned(4)), (2, orphaned(4))].into()
        );
    }

    #[test]
    fn a_retiring_pod_stays_reserved_for_its_flows_when_its_entry_is_removed() {
        let retiring = [(1, ReservedId::RetiringPod), (3, ReservedId::RetiringNic)].into();
        assert_eq!(compare(&retiring, &BTreeSet::new(), false, &[]), retiring);
        assert_eq!(compare(&retiring, &[2, 7].into(), false, &FOUND), retiring);
    }

    #[test]
    fn the_next_id_comes_after_the_last_and_wraps() {
        assert_eq!(next_id(3, &[4].into(), 6), Some(5));
        assert_eq!(next_id(6, &[1].into(), 6), Some(2));
        assert_eq!(next_id(9, &(1..=6).collect(), 6), None);
    }
}
