//! The addresses of an application's pool: as many as it is to have, out of what its subnet has left.

use thiserror::Error;

use crate::ip::{Family, IpRange, IpSet};

/// Why a pool cannot have so many addresses now. It may later.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CarveError {
    /// The subnet has not so many left.
    #[error(
        "insufficient subnet FreeIPs, required '{required}' but only left '{left}': add addresses to the spec.ips of the \
         SpiderSubnet, or delete pools of it"
    )]
    Subnet {
        /// How many more the pool is to have.
        required: u128,
        /// How many no pool has, and are not reserved.
        left: u128,
    },
    /// Pods use more of it than it is to have.
    #[error(
        "IPPool available free IPs are not enough: {used} of its addresses are in use, and it is to have {desired}"
    )]
    InUse {
        /// Those in use.
        used: u128,
        /// How many it is to have.
        desired: u128,
    },
}

/// What is known of a subnet and one pool of it.
#[derive(Debug, Clone)]
pub struct Carving<'a> {
    /// The addresses of the subnet: its `ips` without its `excludeIPs`.
    pub subnet: &'a IpSet,
    /// What other pools have.
    pub others: &'a IpSet,
    /// The addresses of SpiderReservedIPs.
    pub reserved: &'a IpSet,
    /// What the pool has; empty for one that is to be made.
    pub pool: &'a IpSet,
    /// Which of them are in use, or kept.
    pub used: &'a IpSet,
    /// How many it is to have.
    pub desired: u32,
}

/// The addresses that the pool is to have. What is in use stays. Those that it has already stay as far as the subnet still
/// has them and they are not too many: the lowest free ones go first, and the lowest free ones of the subnet come, so that
/// nothing changes for a pool that has the right number.
pub fn plan_carve(carving: &Carving<'_>) -> Result<IpSet, CarveError> {
    let &Carving { subnet, others, reserved, pool, used, desired } = carving;
    let (family, desired) = (subnet.family(), u128::from(desired));
    let used = used.intersection(pool);
    if used.len() > desired {
        return Err(CarveError::InUse { used: used.len(), desired });
    }
    // What is outside of the subnet by now, or another pool's, goes unless it is in use.
    let kept = pool.intersection(subnet).difference(others).union(&used);
    if kept.len() >= desired {
        let free = kept.difference(&used);
        let dropped = lowest(&free, kept.len() - desired, family);
        return Ok(kept.difference(&dropped));
    }
    let required = desired - kept.len();
    let left = subnet.difference(others).difference(reserved).difference(&kept);
    if left.len() < required {
        return Err(CarveError::Subnet { required, left: left.len() });
    }
    Ok(kept.union(&lowest(&left, required, family)))
}

/// The lowest `count` members of a set that has as many.
fn lowest(set: &IpSet, count: u128, family: Family) -> IpSet {
    let mut missing = count;
    let ranges = set.ranges().map_while(|range| {
        let (first, last) = (Family::number(range.first()), Family::number(range.last()));
        let taken = missing.min((last - first).saturating_add(1));
        missing -= taken;
        let end = family.addr(first + taken.checked_sub(1)?);
        IpRange::new(range.first(), end).ok()
    });
    IpSet::from_ranges(family, ranges)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[&str]) -> IpSet {
        IpSet::from_ranges(Family::V4, ranges.iter().map(|range| range.parse().unwrap()))
    }

    fn texts(set: &IpSet) -> Vec<String> {
        set.ranges().map(|range| range.to_string()).collect()
    }

    /// Of subnet 10.0.0.1-10.0.0.9, of which another pool has .3 and .4 is reserved.
    #[track_caller]
    fn check(pool: &[&str], used: &[&str], desired: u32, expect: Result<&[&str], &str>) {
        let [subnet, others, reserved] =
            [set(&["10.0.0.1-10.0.0.9"]), set(&["10.0.0.3"]), set(&["10.0.0.4"])];
        let [pool, used] = [set(pool), set(used)];
        let (subnet, others, reserved, pool, used) = (&subnet, &others, &reserved, &pool, &used);
        let got = plan_carve(&Carving { subnet, others, reserved, pool, used, desired });
        match expect {
            Ok(ranges) => {
                assert_eq!(got.as_ref().map(texts), Ok(ranges.iter().map(ToString::to_string).collect()));
            }
            Err(part) => {
                assert!(got.as_ref().is_err_and(|error| error.to_string().contains(part)), "{got:?}");
            }
        }
    }

    #[test]
    fn a_new_pool_has_the_lowest_that_are_left() {
        check(&[], &[], 0, Ok(&[]));
        check(&[], &[], 3, Ok(&["10.0.0.1-10.0.0.2", "10.0.0.5"]));
        check(&[], &[], 7, Ok(&["10.0.0.1-10.0.0.2", "10.0.0.5-10.0.0.9"]));
        check(&[], &[], 8, Err("insufficient subnet FreeIPs, required '8' but only left '7'"));
    }

    #[test]
    fn one_that_has_the_right_number_stays_as_it_is() {
        check(&["10.0.0.8-10.0.0.9"], &["10.0.0.9"], 2, Ok(&["10.0.0.8-10.0.0.9"]));
        // Reserved since it was carved: the agents give it to nobody, and it goes with the next change.
        check(&["10.0.0.4"], &[], 1, Ok(&["10.0.0.4"]));
    }

    #[test]
    fn one_grows_by_the_lowest_and_shrinks_by_the_lowest_free() {
        check(
            &["10.0.0.2", "10.0.0.7"],
            &["10.0.0.7"],
            4,
            Ok(&["10.0.0.1-10.0.0.2", "10.0.0.5", "10.0.0.7"]),
        );
        check(&["10.0.0.5-10.0.0.9"], &["10.0.0.5", "10.0.0.8"], 3, Ok(&["10.0.0.5", "10.0.0.8-10.0.0.9"]));
        check(
            &["10.0.0.5-10.0.0.7"],
            &["10.0.0.5", "10.0.0.6"],
            1,
            Err("free IPs are not enough: 2 of its addresses"),
        );
    }

    #[test]
    fn what_the_subnet_has_no_more_goes_unless_it_is_in_use() {
        check(&["10.0.0.9-10.0.0.11"], &["10.0.0.11"], 3, Ok(&["10.0.0.1", "10.0.0.9", "10.0.0.11"]));
        check(&["10.0.0.2-10.0.0.3"], &[], 2, Ok(&["10.0.0.1-10.0.0.2"]));
    }

    proptest! {
        /// The number is right, nothing in use is lost, nothing is taken from others or reserved, and asking again changes
        /// nothing.
        #[test]
        fn a_carved_pool_is_right_and_stays(
            subnet in proptest::collection::btree_set(0u8..60, 0..60),
            others in proptest::collection::btree_set(0u8..60, 0..20),
            reserved in proptest::collection::btree_set(0u8..60, 0..10),
            pool in proptest::collection::btree_set(0u8..60, 0..20),
            used in proptest::collection::btree_set(0u8..60, 0..20),
            desired in 0u32..40,
        ) {
            let of = |numbers: &std::collections::BTreeSet<u8>| {
                let ranges = numbers.iter().map(|n| IpRange::single(Family::V4.addr(0x0a00_0000 + u128::from(*n))));
                IpSet::from_ranges(Family::V4, ranges)
            };
            let [subnet, others, reserved, pool, used] = [&subnet, &others, &reserved, &pool, &used].map(of);
            let others = others.difference(&pool);
            let used = used.intersection(&pool);
            let carving = Carving { subnet: &subnet, others: &others, reserved: &reserved, pool: &pool, used: &used, desired };
            if let Ok(carved) = plan_carve(&carving) {
                prop_assert_eq!(carved.len(), u128::from(desired));
                prop_assert!(used.difference(&carved).is_empty());
                let new = carved.difference(&pool);
                prop_assert!(new.difference(&subnet).is_empty());
                prop_assert!(new.intersection(&others).is_empty() && new.intersection(&reserved).is_empty());
                prop_assert_eq!(plan_carve(&Carving { pool: &carved, ..carving }), Ok(carved.clone()));
            }
        }
    }
}
