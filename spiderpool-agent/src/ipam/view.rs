//! What the agent believes of a pool's addresses. A hint for picking: whether an address is free, only the API
//! server knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use spiderpool_core::ip::{Family, IpRange, IpSet};
use spiderpool_core::ipam::pick::pick;

use super::addresses::Listing;

/// A view older than this is renewed before the next pick, if it has been wrong since.
const FRESH: Duration = Duration::from_secs(1);
/// A collision is believed for this long without another sign.
const COLLISION: Duration = Duration::from_secs(30);
/// An address that was released this short a while ago is picked last.
const COOLING: Duration = Duration::from_secs(10);
/// A pool that was found exhausted is not asked for again within this time.
const EXHAUSTED: Duration = Duration::from_secs(5);

/// One pool as the agent sees it.
#[derive(Debug)]
pub(super) struct PoolView {
    used: IpSet,
    listed: Option<Instant>,
    wrong: bool,
    collided: BTreeMap<IpAddr, (Instant, Listing)>,
    picked: BTreeSet<IpAddr>,
    released: BTreeMap<IpAddr, Instant>,
    /// When an exact list left none of these.
    exhausted: Option<(Instant, IpSet)>,
}

impl PoolView {
    /// Nothing is known.
    pub(super) fn new(family: Family) -> Self {
        Self {
            used: IpSet::empty(family),
            listed: None,
            wrong: false,
            collided: BTreeMap::new(),
            picked: BTreeSet::new(),
            released: BTreeMap::new(),
            exhausted: None,
        }
    }

    /// Whether a new list would help the next pick.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.listed.is_none_or(|listed| self.wrong && now.duration_since(listed) >= FRESH)
    }

    /// Exactly these were in use at some time after `begun`.
    pub(super) fn learn(&mut self, used: IpSet, begun: Instant) {
        self.used = used;
        self.listed = Some(begun);
        self.wrong = false;
        // What lists do not show is no less taken.
        self.collided.retain(|_, (since, listing)| *since >= begun || *listing == Listing::Hidden);
    }

    /// Takes one of the addresses that may be handed out and seem free; `own` are the agent's own. The caller
    /// settles what becomes of it.
    pub(super) fn pick(&mut self, usable: &IpSet, own: &[IpAddr], seed: u64, now: Instant) -> Option<IpAddr> {
        self.collided.retain(|_, (since, _)| now.duration_since(*since) < COLLISION);
        self.released.retain(|_, since| now.duration_since(*since) < COOLING);
        let family = usable.family();
        let known = set(family, self.collided.keys().chain(&self.picked).chain(own));
        let free = usable.difference(&self.used).difference(&known);
        let ip = pick(&free, &set(family, self.released.keys()), seed)?;
        self.picked.insert(ip);
        Some(ip)
    }

    /// The picked address is ours now.
    pub(super) fn settle(&mut self, ip: IpAddr) {
        self.picked.remove(&ip);
        self.used.insert(ip);
    }

    /// The picked address is somebody else's.
    pub(super) fn collide(&mut self, ip: IpAddr, listing: Listing, now: Instant) {
        self.picked.remove(&ip);
        self.collided.insert(ip, (now, listing));
        self.wrong |= listing == Listing::Shown;
    }

    /// The picked address was not taken.
    pub(super) fn give_back(&mut self, ip: IpAddr) {
        self.picked.remove(&ip);
        self.exhausted = None;
    }

    /// An address of ours is free again.
    pub(super) fn release(&mut self, ip: IpAddr, now: Instant) {
        self.used.remove(ip);
        self.collided.remove(&ip);
        self.released.insert(ip, now);
        self.exhausted = None;
    }

    /// An exact list left nothing of `usable` to pick.
    pub(super) fn exhaust(&mut self, usable: &IpSet, now: Instant) {
        self.exhausted = Some((now, usable.clone()));
    }

    /// Whether that was so of the same addresses a moment ago, and none has come back since.
    pub(super) fn is_exhausted(&self, usable: &IpSet, now: Instant) -> bool {
        let verdict = self.exhausted.as_ref();
        verdict.is_some_and(|(since, of)| now.duration_since(*since) < EXHAUSTED && of == usable)
    }
}

fn set<'a>(family: Family, addresses: impl IntoIterator<Item = &'a IpAddr>) -> IpSet {
    IpSet::from_ranges(family, addresses.into_iter().copied().map(IpRange::single))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn usable(last: u8) -> IpSet {
        IpSet::from_ranges(Family::V4, [IpRange::new(ip(1), ip(last)).unwrap()])
    }

    fn new() -> (PoolView, Instant) {
        (PoolView::new(Family::V4), Instant::now())
    }

    #[test]
    fn never_the_same_twice_and_all_in_the_end() {
        let (mut view, now) = new();
        let picks: BTreeSet<_> = (0..9).filter_map(|seed| view.pick(&usable(9), &[], seed, now)).collect();
        assert_eq!(picks.len(), 9);
        assert_eq!(view.pick(&usable(9), &[], 1, now), None);
        view.give_back(ip(4));
        assert_eq!(view.pick(&usable(9), &[], 1, now), Some(ip(4)));
    }

    #[test]
    fn what_is_known_to_be_taken_is_left_alone() {
        let (mut view, now) = new();
        view.learn(set(Family::V4, &[ip(1), ip(2)]), now);
        view.collide(ip(3), Listing::Shown, now);
        assert_eq!(view.pick(&usable(5), &[ip(4)], 99, now), Some(ip(5)));
        view.settle(ip(5));
        assert_eq!(view.pick(&usable(5), &[ip(4)], 99, now), None);
        assert_eq!(view.pick(&usable(5), &[ip(4)], 99, now + COLLISION), Some(ip(3)));
    }

    #[test]
    fn a_fresh_release_comes_last() {
        let (mut view, now) = new();
        view.learn(set(Family::V4, &[ip(1)]), now);
        view.release(ip(1), now);
        for seed in 0..2 {
            assert_ne!(view.pick(&usable(3), &[], seed, now), Some(ip(1)));
        }
        assert_eq!(view.pick(&usable(3), &[], 0, now), Some(ip(1)));
    }

    #[test]
    fn a_view_that_was_right_is_kept() {
        let (mut view, now) = new();
        assert!(view.is_stale(now));
        view.learn(IpSet::empty(Family::V4), now);
        assert!(!view.is_stale(now + FRESH * 9));
        view.collide(ip(1), Listing::Shown, now);
        assert!(!view.is_stale(now + FRESH / 2));
        assert!(view.is_stale(now + FRESH));
    }

    #[test]
    fn a_collision_that_lists_do_not_show_outlives_them() {
        let (mut view, now) = new();
        view.collide(ip(1), Listing::Hidden, now);
        view.collide(ip(2), Listing::Shown, now);
        view.learn(IpSet::empty(Family::V4), now + FRESH);
        assert_eq!(view.pick(&usable(2), &[], 0, now + FRESH), Some(ip(2)));
        assert_eq!(view.pick(&usable(2), &[], 0, now + FRESH), None);
        assert_eq!(view.pick(&usable(2), &[], 0, now + COLLISION), Some(ip(1)));
    }

    #[test]
    fn exhaustion_ends_by_time_or_release() {
        let (mut view, now) = new();
        let all = usable(9);
        view.exhaust(&all, now);
        assert!(view.is_exhausted(&all, now) && !view.is_exhausted(&all, now + EXHAUSTED));
        view.release(ip(1), now);
        assert!(!view.is_exhausted(&all, now));
    }

    #[test]
    fn exhaustion_ends_with_what_was_picked_and_not_taken() {
        let (mut view, now) = new();
        assert_eq!(view.pick(&usable(1), &[], 0, now), Some(ip(1)));
        view.exhaust(&usable(1), now);
        view.give_back(ip(1));
        assert!(!view.is_exhausted(&usable(1), now));
    }

    #[test]
    fn exhaustion_is_of_the_addresses_that_were_usable() {
        let (mut view, now) = new();
        view.exhaust(&usable(3), now);
        assert!(!view.is_exhausted(&usable(4), now), "the pool has grown");
    }
}
