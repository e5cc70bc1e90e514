//! How many of a pool's addresses are in use.

use spiderpool_core::ip::{IpRange, IpSet};
use spiderpool_core::ipam::AddressState;
use spiderpool_runtime::pools::AllocationOwner;

use super::cluster_state::ClusterState;

/// Addresses of one pool, at most 2^63-1 of a kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Occupancy {
    /// All, without those that `excludeIPs` takes out. SpiderReservedIPs are not subtracted.
    pub(crate) total: i64,
    /// In use, also of those that the pool has no more.
    pub(crate) used: i64,
    /// Of all, those that are not in use.
    pub(crate) free: i64,
    /// In use, and waiting for the next pod of a name.
    pub(crate) kept: i64,
    /// In use, because somebody else was seen using them.
    pub(crate) quarantined: i64,
}

impl Occupancy {
    /// `None` of a pool that is gone or invalid, or whose addresses upstream's agents give out.
    pub(crate) fn of(state: &ClusterState, name: &str) -> Option<Self> {
        let known = state.pools.get(name)?;
        let pool = known.spec()?.as_ref().ok().filter(|_| known.owner() != AllocationOwner::Upstream)?;
        let held = |wanted| {
            let held = state.addresses.of_pool(name).filter_map(|(_, holding)| holding);
            held.filter(|holding| holding.state == wanted).count() as u128
        };
        let in_use = state.addresses.of_pool(name).map(|(ip, _)| IpRange::single(ip));
        let in_use = IpSet::from_ranges(pool.family(), in_use);
        Some(Self {
            total: saturated(pool.usable.len()),
            used: saturated(in_use.len()),
            free: saturated(pool.usable.difference(&in_use).len()),
            kept: saturated(held(AddressState::Kept)),
            quarantined: saturated(held(AddressState::Quarantined)),
        })
    }
}

fn saturated(count: u128) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_api::crd::SpiderIPAddress;
    use spiderpool_runtime::pools::PoolObject;
    use spiderpool_runtime::watch::Index as _;

    use super::*;
    use crate::leader::state::SlimAddress;

    #[test]
    fn addresses_in_use_are_counted_by_their_state_and_free_ones_only_in_the_pool() {
        let mut state = ClusterState::default();
        let spec = json!({"subnet": "10.6.0.0/24", "ips": ["10.6.0.2-10.6.0.9"], "excludeIPs": ["10.6.0.9"]});
        let pool = json!({"metadata": {"name": "p", "uid": "u", "generation": 1}, "spec": spec});
        state.apply(serde_json::from_value::<PoolObject>(pool).unwrap());
        // The last one is not of the pool any more.
        for (last, kind) in [(2, "bound"), (3, "kept"), (4, "quarantined"), (9, "bound")] {
            let address: SpiderIPAddress = serde_json::from_value(json!({
                "metadata": {"name": format!("10.6.0.{last}")},
                "spec": {
                    "address": format!("10.6.0.{last}/24"), "pool": "p", "interface": "eth0",
                    "podNamespace": "ns", "podName": "a", "podUID": "a", "state": kind,
                },
            }))
            .unwrap();
            state.apply(SlimAddress::from(address));
        }
        let wanted = Occupancy { total: 7, used: 4, free: 4, kept: 1, quarantined: 1 };
        assert_eq!(Occupancy::of(&state, "p"), Some(wanted));
        assert_eq!(Occupancy::of(&state, "q"), None);
    }

    #[test]
    fn huge_pools_end_at_the_largest_number() {
        let mut state = ClusterState::default();
        let spec = json!({"subnet": "fd00::/48", "ips": ["fd00::2-fd00::ffff:ffff:ffff:ffff:ffff"]});
        let pool = json!({"metadata": {"name": "p", "uid": "u", "generation": 1}, "spec": spec});
        state.apply(serde_json::from_value::<PoolObject>(pool).unwrap());
        let found = Occupancy::of(&state, "p").unwrap();
        assert_eq!((found.total, found.free, found.used), (i64::MAX, i64::MAX, 0));
    }
}
