//! Who leads, decided from what is observed of the Lease. No clock and no API server here.

use std::time::{Duration, Instant};

/// The times of an election, as client-go has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A Lease that has not changed for this long may be taken from its holder.
    pub duration: Duration,
    /// A leader that could not renew its Lease for this long stops leading; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Pause between two reads or renewals.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The Lease as the API server had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedLease {
    /// Its resourceVersion: it changes with each renewal.
    pub version: String,
    /// The identity of its holder; empty if it has none.
    pub holder: String,
    /// How long it lasts without renewal, as its holder has set.
    pub duration: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAction {
    /// There is no Lease: create it.
    Create,
    /// It has no holder, or has expired: take it.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Another candidate holds it.
    Wait,
}

/// What one candidate knows of the election.
#[derive(Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    observed: Option<(ObservedLease, Instant)>,
    renewed: Option<Instant>,
}

impl Election {
    /// Before the first observation. No other candidate has this identity.
    pub fn new(identity: impl Into<String>, timing: Timing) -> Self {
        Self { identity: identity.into(), timing, observed: None, renewed: None }
    }

    /// As given to [`Self::new`].
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The Lease as it was read. Its timestamps are not compared, since clocks differ: what counts is for how long this
    /// candidate has not seen it change.
    pub fn observe(&mut self, found: Option<ObservedLease>, now: Instant) {
        let since = match (&self.observed, &found) {
            (Some((known, since)), Some(found)) if known == found => *since,
            _ => now,
        };
        if found.as_ref().is_none_or(|found| found.holder != self.identity) {
            self.renewed = None;
        }
        self.observed = found.map(|found| (found, since));
    }

    /// What to do after [`Self::observe`].
    pub fn plan(&self, now: Instant) -> LeaseAction {
        match &self.observed {
            None => LeaseAction::Create,
            // Also after a restart of this process: no other candidate has its identity.
            Some((lease, _)) if lease.holder == self.identity => LeaseAction::Renew,
            Some((lease, since)) => {
                let has_expired = now.duration_since(*since) >= lease.duration;
                if lease.holder.is_empty() || has_expired { LeaseAction::Take } else { LeaseAction::Wait }
            }
        }
    }

    /// A write that was sent at `begun` has succeeded.
    pub fn acquired(&mut self, written: ObservedLease, begun: Instant) {
        self.observed = Some((written, begun));
        self.renewed = Some(begun);
    }

    /// The Lease was written by another candidate: what was observed is outdated.
    pub fn forget(&mut self) {
        self.observed = None;
    }

    /// Whether this candidate leads now.
    pub fn is_leader(&self, now: Instant) -> bool {
        self.remaining(now).is_some()
    }

    /// How long it still leads without a further renewal; `None` if it does not lead.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        let end = self.renewed? + self.timing.renew_deadline;
        (now < end).then(|| end - now)
    }

    /// The identity of the last observed holder.
    pub fn holder(&self) -> Option<&str> {
        self.observed.as_ref().map(|(lease, _)| lease.holder.as_str()).filter(|holder| !holder.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(version: &str, holder: &str) -> ObservedLease {
        ObservedLease { version: version.into(), holder: holder.into(), duration: Timing::default().duration }
    }

    fn new() -> (Election, Instant) {
        (Election::new("a", Timing::default()), Instant::now())
    }

    #[test]
    fn a_free_lease_is_taken_at_once() {
        let (mut election, now) = new();
        election.observe(None, now);
        assert_eq!(election.plan(now), LeaseAction::Create);
        election.observe(Some(lease("1", "")), now);
        assert_eq!(election.plan(now), LeaseAction::Take);
        assert!(!election.is_leader(now), "a plan is no leadership");
    }

    #[test]
    fn a_lease_expires_a_whole_duration_after_it_was_last_seen_to_change() {
        let (mut election, now) = new();
        election.observe(Some(lease("1", "b")), now);
        election.observe(Some(lease("1", "b")), now + SECOND * 14);
        assert_eq!(election.plan(now + SECOND * 14), LeaseAction::Wait);
        assert_eq!(election.plan(now + SECOND * 15), LeaseAction::Take);
        election.observe(Some(lease("2", "b")), now + SECOND * 14);
        assert_eq!(election.plan(now + SECOND * 28), LeaseAction::Wait, "it was renewed");
        assert_eq!(election.holder(), Some("b"));
    }

    #[test]
    fn the_holder_sets_the_duration() {
        let (mut election, now) = new();
        election.observe(Some(ObservedLease { duration: SECOND * 600, ..lease("1", "clean") }), now);
        assert_eq!(election.plan(now + SECOND * 599), LeaseAction::Wait);
    }

    #[test]
    fn leadership_ends_with_the_deadline_before_others_may_take_it() {
        let (mut election, now) = new();
        election.acquired(lease("1", "a"), now);
        assert_eq!(election.plan(now + SECOND * 2), LeaseAction::Renew);
        assert!(election.is_leader(now + SECOND * 9) && !election.is_leader(now + SECOND * 10));
        election.acquired(lease("2", "a"), now + SECOND * 8);
        assert_eq!(election.remaining(now + SECOND * 10), Some(SECOND * 8));
    }

    #[test]
    fn losing_the_lease_ends_leadership_at_once() {
        let (mut election, now) = new();
        election.acquired(lease("1", "a"), now);
        election.forget();
        assert!(election.is_leader(now), "the new holder is not known yet");
        election.observe(Some(lease("2", "b")), now);
        assert!(!election.is_leader(now));
        election.acquired(lease("3", "a"), now);
        election.observe(None, now);
        assert!(!election.is_leader(now), "it was deleted: others may create it");
    }

    #[test]
    fn a_restarted_candidate_renews_its_own_lease() {
        let (mut election, now) = new();
        election.observe(Some(lease("1", "a")), now);
        assert_eq!(election.plan(now), LeaseAction::Renew);
        assert!(!election.is_leader(now));
    }
}
