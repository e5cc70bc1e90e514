//! What the agent knows of a pool's usage. A hint for picking: whether an address is free, only the API server knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use spiderpool_core::ip::{Family, IpRange, IpSet};
use spiderpool_core::ipam::PoolFailure;
use spiderpool_core::ipam::pick::{pick, sample};

use super::store::Listing;

/// Knowledge older than this is renewed before the next pick, if it has been wrong since.
const FRESH: Duration = Duration::from_secs(1);
/// An address that collided counts as used for this long, if nothing else says so.
const COLLISION: Duration = Duration::from_secs(30);
/// An address that was released this short a while ago is picked last.
const COOLING: Duration = Duration::from_secs(10);
/// A list is not replaced by what the leader has written, nor asked for again, within this time. Collisions tell of what
/// was taken since.
const RECENT: Duration = Duration::from_secs(1);
/// A pool that was found exhausted is not asked for again within this time.
const EXHAUSTED: Duration = Duration::from_secs(5);

/// What is known of one pool.
#[derive(Debug)]
pub(super) struct PoolUsage {
    used: IpSet,
    listed: Option<Instant>,
    wrong: bool,
    /// Whether the leader had written anything.
    written: bool,
    /// When the last list from the API server's cache began.
    cached: Option<Instant>,
    collided: BTreeMap<IpAddr, (Instant, Listing)>,
    /// What collided and was not in a list since, by when that began.
    unlisted: BTreeMap<IpAddr, Instant>,
    picked: BTreeSet<IpAddr>,
    released: BTreeMap<IpAddr, Instant>,
    /// Until when it counts that an exact list left none of these.
    exhausted: Option<(Instant, IpSet)>,
    /// When the last exact list began, and whether it succeeded.
    exact: Option<(Instant, Result<(), PoolFailure>)>,
    /// How many were quarantined by the last one that did.
    quarantined: u128,
}

impl PoolUsage {
    /// Nothing is known.
    pub(super) fn new(family: Family) -> Self {
        Self {
            used: IpSet::empty(family),
            listed: None,
            wrong: false,
            written: false,
            cached: None,
            collided: BTreeMap::new(),
            unlisted: BTreeMap::new(),
            picked: BTreeSet::new(),
            released: BTreeMap::new(),
            exhausted: None,
            exact: None,
            quarantined: 0,
        }
    }

    /// Whether a new list would help the next pick.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.listed.is_none_or(|listed| self.wrong && now.duration_since(listed) >= FRESH)
    }

    /// How long ago it was read what is known, collisions aside.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.listed?))
    }

    /// Whether the leader had written anything when it was last read.
    pub(super) fn is_written(&self) -> bool {
        self.written
    }

    /// What the leader has written, read at `begun`: as of an unknown time before, so it contradicts no collision.
    /// `None` if it has written nothing: then what a list said a short while ago is the best there is.
    pub(super) fn update(&mut self, written: Option<IpSet>, begun: Instant) {
        self.written = written.is_some();
        let listed = self.was_listed_within(COLLISION, begun);
        if written.is_some() || !listed {
            self.used = written.unwrap_or_else(|| IpSet::empty(self.used.family()));
        }
        self.listed = Some(begun);
        self.wrong = false;
    }

    /// These were in use as the API server's cache had it at `begun`: it contradicts no collision either.
    pub(super) fn update_from_cache(&mut self, used: IpSet, begun: Instant) {
        self.used = used;
        self.listed = Some(begun);
        self.cached = Some(begun);
        self.wrong = false;
    }

    /// Exactly these were in use at some time after `begun`.
    pub(super) fn update_exactly(&mut self, used: IpSet, begun: Instant) {
        self.used = used;
        self.listed = Some(begun);
        self.exact = Some((begun, Ok(())));
        self.wrong = false;
        // What lists do not show is no less taken.
        let is_known = |(since, listing): &(Instant, Listing)| *since >= begun || *listing == Listing::Hidden;
        let unlisted = self.collided.iter().filter(|(ip, seen)| !is_known(seen) && !self.used.contains(**ip));
        self.unlisted.extend(unlisted.map(|(ip, _)| (*ip, begun)));
        self.collided.retain(|_, seen| is_known(seen));
    }

    /// So many of the pool's addresses are quarantined, by an exact list.
    pub(super) fn set_quarantined(&mut self, count: u128) {
        self.quarantined = count;
    }

    /// How many of the pool's addresses were quarantined.
    pub(super) fn quarantined(&self) -> u128 {
        self.quarantined
    }

    /// Whether the address was somebody else's a short while ago, and an exact list since has not shown it: it was freed,
    /// or lists of the pool do not show it.
    pub(super) fn is_unlisted(&self, ip: IpAddr, now: Instant) -> bool {
        self.unlisted.get(&ip).is_some_and(|since| now.saturating_duration_since(*since) < COLLISION)
    }

    /// Whether an exact list was read a moment ago.
    pub(super) fn is_exact(&self, now: Instant) -> bool {
        self.was_exact_within(RECENT, now)
    }

    /// Whether a list, exact or not, was read a moment ago.
    pub(super) fn is_listed(&self, now: Instant) -> bool {
        self.was_listed_within(RECENT, now)
    }

    fn was_listed_within(&self, time: Duration, now: Instant) -> bool {
        let cached = self.cached.is_some_and(|begun| now.saturating_duration_since(begun) < time);
        cached || self.was_exact_within(time, now)
    }

    fn was_exact_within(&self, time: Duration, now: Instant) -> bool {
        matches!(&self.exact, Some((begun, Ok(()))) if now.duration_since(*begun) < time)
    }

    /// Takes one of the addresses that may be handed out and seem free; `own` are the agent's own. The caller
    /// says what becomes of it.
    pub(super) fn pick(&mut self, usable: &IpSet, own: &[IpAddr], seed: u64, now: Instant) -> Option<IpAddr> {
        self.collided.retain(|_, (since, _)| now.duration_since(*since) < COLLISION);
        self.unlisted.retain(|_, since| now.saturating_duration_since(*since) < COLLISION);
        self.released.retain(|_, since| now.duration_since(*since) < COOLING);
        let ip = sample(usable, |ip| self.is_rested(ip) && !own.contains(&ip), seed)
            .or_else(|| self.pick_of_all(usable, own, seed))?;
        self.picked.insert(ip);
        Some(ip)
    }

    /// Whether the address seems free, and was not released a short while ago.
    fn is_rested(&self, ip: IpAddr) -> bool {
        let is_known = self.collided.contains_key(&ip) || self.picked.contains(&ip);
        !is_known && !self.released.contains_key(&ip) && !self.used.contains(ip)
    }

    /// One of those that seem free, which takes the longer the more are in use.
    fn pick_of_all(&self, usable: &IpSet, own: &[IpAddr], seed: u64) -> Option<IpAddr> {
        let family = usable.family();
        let known = set(family, self.collided.keys().chain(&self.picked).chain(own));
        let free = usable.difference(&self.used).difference(&known);
        pick(&free, &set(family, self.released.keys()), seed)
    }

    /// The picked address is ours now.
    pub(super) fn take(&mut self, ip: IpAddr) {
        self.picked.remove(&ip);
        self.used.insert(ip);
    }

    /// The picked address is somebody else's.
    pub(super) fn mark_collision(&mut self, ip: IpAddr, listing: Listing, now: Instant) {
        self.picked.remove(&ip);
        self.collided.insert(ip, (now, listing));
        self.wrong |= listing == Listing::Shown;
    }

    /// The picked address was not taken.
    pub(super) fn unpick(&mut self, ip: IpAddr) {
        self.picked.remove(&ip);
    }

    /// An address of ours is free again.
    pub(super) fn release(&mut self, ip: IpAddr, now: Instant) {
        self.used.remove(ip);
        self.collided.remove(&ip);
        self.released.insert(ip, now);
    }

    /// An exact list has failed.
    pub(super) fn record_failed_list(&mut self, begun: Instant, failure: PoolFailure) {
        self.exact = Some((begun, Err(failure)));
    }

    /// What came of an exact list that began at this time or later.
    pub(super) fn listed_since(&self, asked: Instant) -> Option<Result<(), PoolFailure>> {
        self.exact.as_ref().filter(|(begun, _)| *begun >= asked).map(|(_, outcome)| outcome.clone())
    }

    /// An exact list left nothing of `usable` to pick.
    pub(super) fn mark_exhausted(&mut self, usable: &IpSet, seed: u64, now: Instant) {
        // Up to a quarter longer, so that agents do not list all at once.
        let time = EXHAUSTED + EXHAUSTED / 1024 * (seed % 256) as u32;
        self.exhausted = Some((now + time, usable.clone()));
    }

    /// Whether that was so of the same addresses a moment ago. What this agent has freed since can be picked.
    pub(super) fn is_exhausted(&self, usable: &IpSet, now: Instant) -> bool {
        let found = self.exhausted.as_ref();
        found.is_some_and(|(until, of)| now < *until && of == usable)
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

    fn new() -> (PoolUsage, Instant) {
        (PoolUsage::new(Family::V4), Instant::now())
    }

    #[test]
    fn never_the_same_twice_and_all_in_the_end() {
        let (mut usage, now) = new();
        let picks: BTreeSet<_> = (0..9).filter_map(|seed| usage.pick(&usable(9), &[], seed, now)).collect();
        assert_eq!(picks.len(), 9);
        assert_eq!(usage.pick(&usable(9), &[], 1, now), None);
        usage.unpick(ip(4));
        assert_eq!(usage.pick(&usable(9), &[], 1, now), Some(ip(4)));
    }

    #[test]
    fn what_is_known_to_be_taken_is_left_alone() {
        let (mut usage, now) = new();
        usage.update_exactly(set(Family::V4, &[ip(1), ip(2)]), now);
        usage.mark_collision(ip(3), Listing::Shown, now);
        assert_eq!(usage.pick(&usable(5), &[ip(4)], 99, now), Some(ip(5)));
        usage.take(ip(5));
        assert_eq!(usage.pick(&usable(5), &[ip(4)], 99, now), None);
        assert_eq!(usage.pick(&usable(5), &[ip(4)], 99, now + COLLISION), Some(ip(3)));
    }

    #[test]
    fn a_fresh_release_comes_last() {
        let (mut usage, now) = new();
        usage.update_exactly(set(Family::V4, &[ip(1)]), now);
        usage.release(ip(1), now);
        for seed in 0..2 {
            assert_ne!(usage.pick(&usable(3), &[], seed, now), Some(ip(1)));
        }
        assert_eq!(usage.pick(&usable(3), &[], 0, now), Some(ip(1)));
    }

    #[test]
    fn a_collision_outlives_a_view_that_may_be_older() {
        let (mut usage, now) = new();
        usage.mark_collision(ip(1), Listing::Shown, now);
        // As a leader that is behind has written it.
        usage.update(Some(IpSet::empty(Family::V4)), now + FRESH);
        assert_eq!(usage.pick(&usable(1), &[], 0, now + FRESH), None);
        assert!(!usage.is_exact(now + FRESH));
        usage.update_exactly(IpSet::empty(Family::V4), now + FRESH);
        assert_eq!(usage.pick(&usable(1), &[], 0, now + FRESH), Some(ip(1)), "it was freed");
        assert!(usage.is_exact(now + FRESH) && !usage.is_exact(now + FRESH + RECENT));
    }

    /// As of a pool whose last addresses are freed, or whose leader is away.
    #[test]
    fn without_anything_written_an_exact_list_counts_for_a_while() {
        let (mut usage, now) = new();
        usage.update(Some(set(Family::V4, &[ip(1)])), now);
        usage.update(None, now + FRESH);
        assert_eq!(usage.pick(&usable(1), &[], 0, now + FRESH), Some(ip(1)), "the leader has taken it back");
        usage.unpick(ip(1));
        usage.update_exactly(set(Family::V4, &[ip(1)]), now + FRESH);
        usage.update(None, now + FRESH * 2);
        assert_eq!(usage.pick(&usable(1), &[], 0, now + FRESH * 2), None);
        usage.update(None, now + FRESH + COLLISION);
        assert_eq!(usage.pick(&usable(1), &[], 0, now + FRESH + COLLISION), Some(ip(1)));
    }

    #[test]
    fn usage_is_renewed_only_after_a_collision() {
        let (mut usage, now) = new();
        assert!(usage.is_stale(now) && usage.age(now).is_none());
        usage.update_exactly(IpSet::empty(Family::V4), now);
        assert_eq!(usage.age(now + FRESH * 9), Some(FRESH * 9));
        assert!(!usage.is_stale(now + FRESH * 9));
        usage.mark_collision(ip(1), Listing::Shown, now);
        assert!(!usage.is_stale(now + FRESH / 2));
        assert!(usage.is_stale(now + FRESH));
    }

    #[test]
    fn a_collision_that_lists_do_not_show_outlives_them() {
        let (mut usage, now) = new();
        usage.mark_collision(ip(1), Listing::Hidden, now);
        usage.mark_collision(ip(2), Listing::Shown, now);
        usage.update_exactly(IpSet::empty(Family::V4), now + FRESH);
        assert_eq!(usage.pick(&usable(2), &[], 0, now + FRESH), Some(ip(2)));
        assert_eq!(usage.pick(&usable(2), &[], 0, now + FRESH), None);
        assert_eq!(usage.pick(&usable(2), &[], 0, now + COLLISION), Some(ip(1)));
    }

    /// Otherwise a free address, in truth somebody else's, would be picked again and again.
    #[test]
    fn what_a_list_does_not_show_is_looked_at_when_it_collides_again() {
        let (mut usage, now) = new();
        for last in [1, 2] {
            usage.mark_collision(ip(last), Listing::Shown, now);
        }
        assert!(!usage.is_unlisted(ip(1), now));
        usage.update_exactly(set(Family::V4, &[ip(2)]), now + FRESH);
        assert!(usage.is_unlisted(ip(1), now + FRESH) && !usage.is_unlisted(ip(2), now + FRESH));
        assert!(!usage.is_unlisted(ip(1), now + FRESH + COLLISION));
    }

    #[test]
    fn exhaustion_ends_by_time() {
        let (mut usage, now) = new();
        usage.mark_exhausted(&usable(9), 0, now);
        assert!(usage.is_exhausted(&usable(9), now) && !usage.is_exhausted(&usable(9), now + EXHAUSTED));
    }

    /// Each release in a rolling update had all waiting pods read the list again.
    #[test]
    fn what_is_freed_here_can_be_picked_from_an_exhausted_pool_without_a_list() {
        let (mut usage, now) = new();
        usage.update_exactly(set(Family::V4, &[ip(1), ip(3)]), now);
        assert_eq!(usage.pick(&usable(3), &[], 0, now), Some(ip(2)));
        usage.mark_exhausted(&usable(3), 0, now);
        assert_eq!(usage.pick(&usable(3), &[], 0, now), None);
        usage.release(ip(1), now);
        assert!(usage.is_exhausted(&usable(3), now));
        assert_eq!(usage.pick(&usable(3), &[], 0, now), Some(ip(1)));
        usage.unpick(ip(2));
        assert_eq!(usage.pick(&usable(3), &[], 0, now), Some(ip(2)));
        assert_eq!(usage.pick(&usable(3), &[], 0, now), None);
    }

    #[test]
    fn a_list_is_shared_by_those_who_asked_before_it_began() {
        let (mut usage, now) = new();
        assert_eq!(usage.listed_since(now), None);
        usage.update_exactly(IpSet::empty(Family::V4), now);
        assert_eq!(usage.listed_since(now), Some(Ok(())));
        assert_eq!(usage.listed_since(now + FRESH), None, "what was freed meanwhile may not be in it");
        let failure = PoolFailure::Unavailable { pool: "p".parse().unwrap(), cause: "down".into() };
        usage.record_failed_list(now + FRESH, failure.clone());
        assert_eq!(usage.listed_since(now + FRESH), Some(Err(failure)));
    }

    #[test]
    fn exhaustion_is_of_the_addresses_that_were_usable() {
        let (mut usage, now) = new();
        usage.mark_exhausted(&usable(3), 0, now);
        assert!(!usage.is_exhausted(&usable(4), now), "the pool has grown");
    }
}
