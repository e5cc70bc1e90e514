//! Choosing an address: at random among what is free, so that nodes do not fight for the same one. The random
//! numbers come from a seed, so that a choice can be repeated in a test and explained from a log.

use std::net::IpAddr;

use crate::ip::IpSet;

/// What a pick is for: picks of different nodes, pods and attempts differ.
#[derive(Debug, Clone, Copy)]
pub struct PickContext<'a> {
    /// The node.
    pub node: &'a str,
    /// The pod's UID.
    pub pod_uid: &'a str,
    /// The NIC.
    pub nic: &'a str,
    /// The pool.
    pub pool: &'a str,
    /// 0 at first, one more after each address that somebody else had.
    pub attempt: u32,
}

impl PickContext<'_> {
    /// A seed that differs between contexts.
    pub fn seed(&self) -> u64 {
        let parts = [self.node, self.pod_uid, self.nic, self.pool];
        // 0xff is in no UTF-8 text, so ("ab", "c") and ("a", "bc") differ.
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
        mix(fnv1a(bytes).wrapping_add(u64::from(self.attempt).wrapping_mul(GOLDEN)))
    }
}

/// One of the free addresses, each as likely as any other; one that was released a short while ago only when no
/// other is free.
pub fn pick(free: &IpSet, recently_released: &IpSet, seed: u64) -> Option<IpAddr> {
    let rested = free.difference(recently_released);
    let set = if rested.is_empty() { free } else { &rested };
    let mut random = Random(seed);
    set.nth(random.below(set.len())?)
}

/// Addresses that [`sample`] looks at. While a quarter of them fits, one in a hundred times none of these does.
const SAMPLES: u32 = 16;

/// One of the addresses that fit, each as likely as any other, without looking at all of them: in a pool with a hundred thousand
/// addresses in use that would take longer than everything else. `None` where few fit, or none.
pub fn sample(usable: &IpSet, fits: impl Fn(IpAddr) -> bool, seed: u64) -> Option<IpAddr> {
    let (mut random, count) = (Random(seed), usable.len());
    (0..SAMPLES).find_map(|_| usable.nth(random.below(count)?).filter(|ip| fits(*ip)))
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast and good enough to spread picks.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Uniform in `0..limit`, `None` for an empty range: numbers of as many bits as `limit - 1` has, until one fits.
    fn below(&mut self, limit: u128) -> Option<u128> {
        let highest = limit.checked_sub(1)?;
        let mask = u128::MAX.checked_shr(highest.leading_zeros()).unwrap_or(0);
        loop {
            let number = (u128::from(self.next()) << 64 | u128::from(self.next())) & mask;
            if number <= highest {
                return Some(number);
            }
        }
    }
}

/// SplitMix64's output function.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits: the same on every machine and in every version.
pub(crate) fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::ip::{Family, IpRange};

    fn set(ranges: &[&str]) -> IpSet {
        let ranges: Vec<IpRange> = ranges.iter().map(|r| r.parse().unwrap()).collect();
        IpSet::from_ranges(ranges.first().map_or(Family::V4, IpRange::family), ranges)
    }

    fn context(attempt: u32) -> PickContext<'static> {
        PickContext { node: "n1", pod_uid: "u1", nic: "eth0", pool: "p", attempt }
    }

    #[test]
    fn nothing_free_gives_nothing() {
        assert_eq!(pick(&IpSet::empty(Family::V4), &IpSet::empty(Family::V4), 1), None);
    }

    #[test]
    fn recently_released_addresses_come_last() {
        let free = set(&["10.0.0.1-10.0.0.4"]);
        for seed in 0..100 {
            assert_eq!(pick(&free, &set(&["10.0.0.1-10.0.0.3"]), seed), Some("10.0.0.4".parse().unwrap()));
            assert!(pick(&free, &free, seed).is_some());
        }
    }

    /// First-fit and linear probing make all nodes try the same address: picks must spread.
    #[test]
    fn pods_and_attempts_spread_over_the_pool() {
        let free = set(&["10.0.0.0-10.0.255.255"]);
        let none = IpSet::empty(Family::V4);
        let picks: BTreeSet<_> = (0..200).map(|a| pick(&free, &none, context(a).seed()).unwrap()).collect();
        assert!(picks.len() > 195, "{} of 200 differ", picks.len());
        let nodes: BTreeSet<_> = ["n1", "n2", "n3", "n4", "n5"]
            .map(|node| pick(&free, &none, PickContext { node, ..context(0) }.seed()).unwrap())
            .into();
        assert_eq!(nodes.len(), 5);
        let nics =
            ["eth0", "net1"].map(|nic| pick(&free, &none, PickContext { nic, ..context(0) }.seed()).unwrap());
        assert_ne!(nics[0], nics[1]);
        assert_ne!(
            PickContext { node: "ab", pod_uid: "c", ..context(0) }.seed(),
            PickContext { node: "a", pod_uid: "bc", ..context(0) }.seed()
        );
    }

    /// Chi-squared over two intervals that are not a power of two: 99 degrees of freedom, 1 in 10,000 is 161.
    #[test]
    fn picks_are_uniform() {
        let free = set(&["10.0.0.0-10.0.0.49", "10.0.1.0-10.0.1.49"]);
        let none = IpSet::empty(Family::V4);
        let mut counts = BTreeMap::new();
        for attempt in 0..10_000 {
            *counts.entry(pick(&free, &none, context(attempt).seed()).unwrap()).or_insert(0.0) += 1.0f64;
        }
        let chi: f64 = counts.values().map(|n| (n - 100.0).powi(2) / 100.0).sum();
        assert!(counts.len() == 100 && chi < 161.0, "{} addresses, chi-squared {chi}", counts.len());
    }

    /// As [`picks_are_uniform`].
    #[test]
    fn samples_are_uniform_among_those_that_fit() {
        let usable = set(&["10.0.0.0-10.0.0.99", "10.0.1.0-10.0.1.99"]);
        let fits = |ip: IpAddr| Family::number(ip).is_multiple_of(2);
        let mut counts = BTreeMap::new();
        let mut without = 0;
        for attempt in 0..10_000 {
            match sample(&usable, fits, context(attempt).seed()) {
                Some(ip) => *counts.entry(ip).or_insert(0.0) += 1.0f64,
                None => without += 1,
            }
        }
        let chi: f64 = counts.values().map(|n| (n - 100.0).powi(2) / 100.0).sum();
        assert!(without < 5 && counts.len() == 100 && chi < 161.0, "{without} without, chi-squared {chi}");
        assert!(counts.keys().all(|ip| fits(*ip) && usable.contains(*ip)));
        assert_eq!(sample(&usable, |_| false, 1), None);
        assert_eq!(sample(&IpSet::empty(Family::V4), |_| true, 1), None);
    }

    #[test]
    fn a_huge_set_is_reached_everywhere() {
        let all = set(&["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
        let none = IpSet::empty(Family::V6);
        let tops: BTreeSet<u128> =
            (0..200).map(|a| Family::number(pick(&all, &none, context(a).seed()).unwrap()) >> 124).collect();
        assert_eq!(tops.len(), 16);
    }

    proptest! {
        #[test]
        fn picks_what_a_list_would(
            free in proptest::collection::btree_set(0u32..40, 0..20),
            recent in proptest::collection::btree_set(0u32..40, 0..20),
            seed in any::<u64>(),
        ) {
            let of = |numbers: &BTreeSet<u32>| {
                let ranges = numbers.iter().map(|n| IpRange::single(Family::V4.addr((*n).into())));
                IpSet::from_ranges(Family::V4, ranges)
            };
            let rested: Vec<u32> = free.difference(&recent).copied().collect();
            let allowed = if rested.is_empty() { free.iter().copied().collect() } else { rested };
            let picked = pick(&of(&free), &of(&recent), seed).map(|a| Family::number(a) as u32);
            match picked {
                None => prop_assert!(free.is_empty()),
                Some(address) => prop_assert!(allowed.contains(&address)),
            }
            prop_assert_eq!(picked, pick(&of(&free), &of(&recent), seed).map(|a| Family::number(a) as u32));
        }
    }
}
