//! Pools: the addresses that their ranges make.

use spiderpool_core::ip::{Family, IpRange, IpSet};
use spiderpool_core::ipam::{Pool, PoolFields};

pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let subnet = lines.next().unwrap_or_default();
    let (excluded, ips): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with('!'));
    let ips: Vec<String> = ips.into_iter().map(ToOwned::to_owned).collect();
    let exclude_ips: Vec<String> =
        excluded.into_iter().map(|line| line.trim_start_matches('!').to_owned()).collect();
    for text in ips.iter().chain(&exclude_ips) {
        round_trip(text);
    }
    let fields =
        PoolFields { name: "p", subnet, ips: &ips, exclude_ips: &exclude_ips, ..PoolFields::default() };
    let Ok(pool) = Pool::parse(&fields) else { return };
    holds_what_it_says(&pool);
    for text in &exclude_ips {
        let range = parsed(text);
        assert_eq!(pool.usable.count_within(range), 0, "{range} is excluded");
    }
}

/// A range is printed as what it is parsed from.
fn round_trip(text: &str) {
    if let Ok(range) = text.parse::<IpRange>() {
        assert_eq!(range.to_string().parse(), Ok(range));
        assert!(range.contains(range.first()) && range.contains(range.last()));
    }
}

/// A valid pool has no range that does not parse.
fn parsed(text: &str) -> IpRange {
    text.parse().unwrap_or_else(|error| panic!("{text:?} of a valid pool: {error}"))
}

fn holds_what_it_says(pool: &Pool) {
    let usable = &pool.usable;
    let family = Family::of_net(&pool.subnet);
    let mut sum = 0_u128;
    let mut before: Option<IpRange> = None;
    for range in usable.ranges() {
        assert!(pool.subnet.contains(&range.first()) && pool.subnet.contains(&range.last()));
        // They are sorted, and do not touch.
        if let Some(before) = before {
            assert!(Family::number(before.last()) + 1 < Family::number(range.first()));
        }
        sum = sum.saturating_add(usable.count_within(range));
        before = Some(range);
    }
    assert_eq!(sum, usable.len());
    if let Some(last) = usable.len().checked_sub(1) {
        for index in [0, last / 2, last] {
            assert!(usable.nth(index).is_some_and(|ip| usable.contains(ip)), "{index}");
        }
    }
    assert_eq!(usable.nth(usable.len()), None);
    let all = IpSet::from_ranges(family, usable.ranges());
    assert!(
        usable.difference(&all).is_empty()
            && usable.union(&all) == *usable
            && usable.intersection(&all) == *usable
    );
}
