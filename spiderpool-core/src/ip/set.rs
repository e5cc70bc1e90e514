//! A set of addresses of one family, kept as sorted, disjoint, non-adjacent intervals.

use std::net::IpAddr;

use super::{Family, IpRange};

/// A set of addresses of one family. Every operation costs what the number of intervals costs, however many
/// addresses they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpSet {
    family: Family,
    /// Sorted, disjoint, and with at least one missing address between neighbors.
    intervals: Vec<(u128, u128)>,
}

impl IpSet {
    /// The empty set.
    pub fn empty(family: Family) -> Self {
        Self { family, intervals: Vec::new() }
    }

    /// The union of ranges; ranges of the other family are left out.
    pub fn from_ranges(family: Family, ranges: impl IntoIterator<Item = IpRange>) -> Self {
        let mut intervals: Vec<_> = ranges
            .into_iter()
            .filter(|range| range.family() == family)
            .map(|range| range.numbers())
            .collect();
        intervals.sort_unstable();
        let mut set = Self::empty(family);
        for (first, last) in intervals {
            set.push(first, last);
        }
        set
    }

    /// Appends an interval that starts at or behind the start of the last one.
    fn push(&mut self, first: u128, last: u128) {
        match self.intervals.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => self.intervals.push((first, last)),
        }
    }

    /// The family of all members.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether the set has no member.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// The number of members; the whole IPv6 space counts as `u128::MAX`.
    pub fn len(&self) -> u128 {
        self.intervals
            .iter()
            .fold(0u128, |sum, (first, last)| sum.saturating_add(last - first).saturating_add(1))
    }

    /// The canonical form: sorted, maximal ranges.
    pub fn ranges(&self) -> impl Iterator<Item = IpRange> + '_ {
        self.intervals.iter().map(|(first, last)| IpRange::of_numbers(self.family, *first, *last))
    }

    /// Whether the address is a member.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let number = Family::number(addr);
        let behind = self.intervals.partition_point(|(first, _)| *first <= number);
        Family::of(addr) == self.family && behind > 0 && number <= self.intervals[behind - 1].1
    }

    /// How many addresses of a range are members. Costs what the intervals within the range cost.
    pub fn count_within(&self, range: IpRange) -> u128 {
        if range.family() != self.family {
            return 0;
        }
        let (from, to) = range.numbers();
        let start = self.intervals.partition_point(|(_, last)| *last < from);
        let within = self.intervals[start..].iter().take_while(|(first, _)| *first <= to);
        within.fold(0u128, |sum, (first, last)| {
            sum.saturating_add(last.min(&to) - first.max(&from)).saturating_add(1)
        })
    }

    /// The member at this place in ascending order.
    pub fn nth(&self, mut index: u128) -> Option<IpAddr> {
        for (first, last) in &self.intervals {
            let beyond = last - first;
            if index <= beyond {
                return Some(self.family.addr(first + index));
            }
            index -= beyond + 1;
        }
        None
    }

    /// Adds an address; `false` when it was a member or is of the other family.
    pub fn insert(&mut self, addr: IpAddr) -> bool {
        if Family::of(addr) != self.family || self.contains(addr) {
            return false;
        }
        let number = Family::number(addr);
        let at = self.intervals.partition_point(|(first, _)| *first < number);
        let joins_next = self.intervals.get(at).is_some_and(|(first, _)| *first - 1 == number);
        let joins_last = at > 0 && self.intervals[at - 1].1 + 1 == number;
        match (joins_last, joins_next) {
            (true, true) => self.intervals[at - 1].1 = self.intervals.remove(at).1,
            (true, false) => self.intervals[at - 1].1 = number,
            (false, true) => self.intervals[at].0 = number,
            (false, false) => self.intervals.insert(at, (number, number)),
        }
        true
    }

    /// Takes an address out; `false` when it was no member.
    pub fn remove(&mut self, addr: IpAddr) -> bool {
        if !self.contains(addr) {
            return false;
        }
        let number = Family::number(addr);
        let at = self.intervals.partition_point(|(first, _)| *first <= number) - 1;
        let (first, last) = self.intervals[at];
        match (first == number, last == number) {
            (true, true) => {
                self.intervals.remove(at);
            }
            (true, false) => self.intervals[at].0 = number + 1,
            (false, true) => self.intervals[at].1 = number - 1,
            (false, false) => {
                self.intervals[at].1 = number - 1;
                self.intervals.insert(at + 1, (number + 1, last));
            }
        }
        true
    }

    /// All members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.family, self.ranges().chain(other.ranges()))
    }

    /// The members of this set that are not in the other one.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut result = Self::empty(self.family);
        if other.family != self.family {
            return self.clone();
        }
        let mut holes = other.intervals.iter().copied().peekable();
        for &(first, last) in &self.intervals {
            let mut start = Some(first);
            while let (Some(from), Some(&(hole_first, hole_last))) = (start, holes.peek()) {
                if hole_last < from {
                    holes.next();
                    continue;
                }
                if hole_first > last {
                    break;
                }
                if hole_first > from {
                    result.intervals.push((from, hole_first - 1));
                }
                // A hole that reaches beyond this interval is needed again for the next one.
                start = if hole_last >= last { None } else { Some(hole_last + 1) };
            }
            if let Some(from) = start {
                result.intervals.push((from, last));
            }
        }
        result
    }

    /// The members that both sets have.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.difference(&self.difference(other))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[&str]) -> IpSet {
        let ranges: Vec<IpRange> = ranges.iter().map(|r| r.parse().unwrap()).collect();
        IpSet::from_ranges(ranges.first().map_or(Family::V4, IpRange::family), ranges)
    }

    fn texts(set: &IpSet) -> Vec<String> {
        set.ranges().map(|r| r.to_string()).collect()
    }

    #[test]
    fn canonical_form_joins_neighbors() {
        assert_eq!(
            texts(&set(&["10.0.0.5", "10.0.0.1-10.0.0.3", "10.0.0.4", "10.0.0.9"])),
            ["10.0.0.1-10.0.0.5", "10.0.0.9"]
        );
    }

    #[test]
    fn the_ends_of_the_address_space_do_not_overflow() {
        let all = set(&["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
        assert_eq!(all.len(), u128::MAX);
        assert!(all.difference(&all).is_empty());
        let top = set(&["255.255.255.255"]);
        assert_eq!(texts(&top.union(&set(&["255.255.255.254"]))), ["255.255.255.254-255.255.255.255"]);
        assert_eq!(all.nth(u128::MAX), Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap()));
    }

    /// A small universe near the top of IPv4, so that models can be enumerated.
    const BASE: u32 = 0xffff_ffc0;

    fn small_set() -> impl Strategy<Value = (IpSet, BTreeSet<u32>)> {
        proptest::collection::vec((0u32..64, 0u32..64), 0..6).prop_map(|pairs| {
            let mut model = BTreeSet::new();
            let mut ranges = Vec::new();
            for (a, b) in pairs {
                let (a, b) = (BASE + a.min(b), BASE + a.max(b));
                model.extend(a..=b);
                ranges.push(IpRange::of_numbers(Family::V4, a.into(), b.into()));
            }
            (IpSet::from_ranges(Family::V4, ranges), model)
        })
    }

    fn members(set: &IpSet) -> Vec<u32> {
        (0..set.len()).map(|i| Family::number(set.nth(i).unwrap()) as u32).collect()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set((a, model_a) in small_set(), (b, model_b) in small_set()) {
            prop_assert_eq!(members(&a), model_a.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(members(&a.union(&b)), model_a.union(&model_b).copied().collect::<Vec<_>>());
            prop_assert_eq!(members(&a.difference(&b)), model_a.difference(&model_b).copied().collect::<Vec<_>>());
            prop_assert_eq!(
                members(&a.intersection(&b)),
                model_a.intersection(&model_b).copied().collect::<Vec<_>>()
            );
            for number in BASE..=u32::MAX {
                prop_assert_eq!(a.contains(Family::V4.addr(number.into())), model_a.contains(&number));
            }
            prop_assert_eq!(a.nth(a.len()), None);
            for within in b.ranges() {
                let only = IpSet::from_ranges(Family::V4, [within]);
                prop_assert_eq!(a.count_within(within), a.intersection(&only).len());
            }
        }

        #[test]
        fn insert_and_remove_change_one((mut a, mut model) in small_set(), steps in proptest::collection::vec((any::<bool>(), 0u32..64), 0..20)) {
            for (adds, number) in steps {
                let addr = Family::V4.addr((BASE + number).into());
                if adds {
                    prop_assert_eq!(a.insert(addr), model.insert(BASE + number));
                } else {
                    prop_assert_eq!(a.remove(addr), model.remove(&(BASE + number)));
                }
                prop_assert_eq!(&a, &IpSet::from_ranges(Family::V4, a.ranges()));
            }
            prop_assert_eq!(members(&a), model.iter().copied().collect::<Vec<_>>());
        }

        #[test]
        fn canonical_form_has_gaps((a, _) in small_set()) {
            for pair in a.intervals.windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0);
            }
        }
    }
}
