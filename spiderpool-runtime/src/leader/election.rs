//! Who leads, decided from what is seen of the Lease. No clock and no API server here.

use std::time::{Duration, Instant};

/// How long a leader may be silent, and how often it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A Lease that has not changed for this long may be taken from its holder.
    pub duration: Duration,
    /// A leader that could not renew its Lease for this long stops leading; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Pause between two looks.
    pub retry: Duration,
}

impl Default for Terms {
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
pub struct Seen {
    /// Its resourceVersion: another one says that the holder is there.
    pub version: String,
    /// Who holds it; empty if nobody does.
    pub holder: String,
    /// How long its holder may be silent.
    pub duration: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is no Lease: create it.
    Create,
    /// It is nobody's, or its holder is silent: take it.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else leads.
    Wait,
}

/// One candidate's knowledge.
#[derive(Debug)]
pub struct Election {
    identity: String,
    terms: Terms,
    seen: Option<(Seen, Instant)>,
    renewed: Option<Instant>,
}

impl Election {
    /// Nothing is seen yet. The identity is the candidate's alone.
    pub fn new(identity: impl Into<String>, terms: Terms) -> Self {
        Self { identity: identity.into(), terms, seen: None, renewed: None }
    }

    /// The terms.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// What has been read. Times of the Lease are not compared: clocks differ. What counts is how long it has not
    /// changed before our eyes.
    pub fn see(&mut self, found: Option<Seen>, now: Instant) {
        let since = match (&self.seen, &found) {
            (Some((known, since)), Some(found)) if known == found => *since,
            _ => now,
        };
        if found.as_ref().is_none_or(|found| found.holder != self.identity) {
            self.renewed = None;
        }
        self.seen = found.map(|found| (found, since));
    }

    /// What to do after [`Self::see`].
    pub fn plan(&self, now: Instant) -> Step {
        match &self.seen {
            None => Step::Create,
            // Also of an earlier life under this name: nobody else may hold it.
            Some((seen, _)) if seen.holder == self.identity => Step::Renew,
            Some((seen, since)) => {
                let is_silent = now.duration_since(*since) >= seen.duration;
                if seen.holder.is_empty() || is_silent { Step::Take } else { Step::Wait }
            }
        }
    }

    /// A write that was begun at `begun` has succeeded.
    pub fn won(&mut self, written: Seen, begun: Instant) {
        self.seen = Some((written, begun));
        self.renewed = Some(begun);
    }

    /// Somebody else has written the Lease: what is known of it is old.
    pub fn outrun(&mut self) {
        self.seen = None;
    }

    /// Whether this candidate leads now.
    pub fn leads(&self, now: Instant) -> bool {
        self.left(now).is_some()
    }

    /// How long it still leads if nothing more is heard; `None` if it does not.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        let end = self.renewed? + self.terms.renew_deadline;
        (now < end).then(|| end - now)
    }

    /// Who was last seen to lead.
    pub fn leader(&self) -> Option<&str> {
        self.seen.as_ref().map(|(seen, _)| seen.holder.as_str()).filter(|holder| !holder.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seen(version: &str, holder: &str) -> Seen {
        Seen { version: version.into(), holder: holder.into(), duration: Terms::default().duration }
    }

    fn new() -> (Election, Instant) {
        (Election::new("a", Terms::default()), Instant::now())
    }

    #[test]
    fn a_free_lease_is_taken_at_once() {
        let (mut election, now) = new();
        election.see(None, now);
        assert_eq!(election.plan(now), Step::Create);
        election.see(Some(seen("1", "")), now);
        assert_eq!(election.plan(now), Step::Take);
        assert!(!election.leads(now), "a plan is no leadership");
    }

    #[test]
    fn a_silent_holder_is_waited_for_a_whole_term_from_when_it_was_first_seen() {
        let (mut election, now) = new();
        election.see(Some(seen("1", "b")), now);
        election.see(Some(seen("1", "b")), now + SECOND * 14);
        assert_eq!(election.plan(now + SECOND * 14), Step::Wait);
        assert_eq!(election.plan(now + SECOND * 15), Step::Take);
        election.see(Some(seen("2", "b")), now + SECOND * 14);
        assert_eq!(election.plan(now + SECOND * 28), Step::Wait, "it has spoken");
        assert_eq!(election.leader(), Some("b"));
    }

    #[test]
    fn the_holder_says_how_long_it_may_be_silent() {
        let (mut election, now) = new();
        election.see(Some(Seen { duration: SECOND * 600, ..seen("1", "clean") }), now);
        assert_eq!(election.plan(now + SECOND * 599), Step::Wait);
    }

    #[test]
    fn leadership_ends_with_the_deadline_before_others_may_take_it() {
        let (mut election, now) = new();
        election.won(seen("1", "a"), now);
        assert_eq!(election.plan(now + SECOND * 2), Step::Renew);
        assert!(election.leads(now + SECOND * 9) && !election.leads(now + SECOND * 10));
        election.won(seen("2", "a"), now + SECOND * 8);
        assert_eq!(election.left(now + SECOND * 10), Some(SECOND * 8));
    }

    #[test]
    fn a_lease_in_other_hands_ends_it_at_once() {
        let (mut election, now) = new();
        election.won(seen("1", "a"), now);
        election.outrun();
        assert!(election.leads(now), "who has written it is not known yet");
        election.see(Some(seen("2", "b")), now);
        assert!(!election.leads(now));
        election.won(seen("3", "a"), now);
        election.see(None, now);
        assert!(!election.leads(now), "it was deleted: others may create it");
    }

    #[test]
    fn an_earlier_life_of_the_same_pod_is_no_stranger() {
        let (mut election, now) = new();
        election.see(Some(seen("1", "a")), now);
        assert_eq!(election.plan(now), Step::Renew);
        assert!(!election.leads(now));
    }
}
