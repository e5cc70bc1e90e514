//! Pods that the API server forgot while they ran, as `kubectl delete --force` does it. Their kubelet hears of it
//! later than everybody else and still grants them their grace period (`calculateEffectiveGracePeriod` in Kubernetes'
//! pkg/kubelet/pod_workers.go), so what they hold is in use for a while.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// The grace period of a pod that names none (`DefaultTerminationGracePeriodSeconds`).
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// For the kubelet to hear of it and to take down the sandbox, on top of the grace period.
const MARGIN: Duration = Duration::from_secs(5);

/// A pod's grace period may be any number of seconds; a point of time that far in the future has no representation.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// How long a pod of this grace period may run after it has vanished.
pub fn may_run_for(grace: Duration) -> Duration {
    grace.saturating_add(MARGIN).min(LONGEST)
}

/// Which pods may run although they are gone, by their UIDs. `T` is a point of time.
#[derive(Debug, Clone)]
pub struct Vanished<T> {
    /// Those that were seen to vanish, and until when they may run.
    until: HashMap<Box<str>, T>,
    /// Until when a pod may run of which nothing was ever seen: it may have vanished just before.
    unseen_until: Option<T>,
    /// Pods that were seen to go before that, in whatever way.
    seen: HashSet<Box<str>>,
}

impl<T> Default for Vanished<T> {
    fn default() -> Self {
        Self { until: HashMap::new(), unseen_until: None, seen: HashSet::new() }
    }
}

impl<T: Copy + Ord> Vanished<T> {
    /// The pods have been listed. What vanished before the first list may run until `unseen_until`.
    pub fn listed(&mut self, unseen_until: impl FnOnce() -> Option<T>) {
        if self.unseen_until.is_none() {
            self.unseen_until = unseen_until();
        }
    }

    /// The pod has gone and may run until then; `None`: it had stopped.
    pub fn insert(&mut self, uid: &str, until: Option<T>, now: T) {
        self.until.retain(|_, until| *until > now);
        if let Some(until) = until {
            self.until.insert(uid.into(), until);
        }
        if self.unseen_until.is_some_and(|until| until > now) {
            self.seen.insert(uid.into());
        } else {
            self.seen = HashSet::new();
        }
    }

    /// Until when the pod may run, if that is still to come. To be asked of pods that are gone.
    pub fn until(&self, uid: &str, now: T) -> Option<T> {
        let unseen = || self.unseen_until.filter(|_| !self.seen.contains(uid));
        self.until.get(uid).copied().or_else(unseen).filter(|until| *until > now)
    }

    /// The pod is there, after all.
    pub fn remove(&mut self, uid: &str) {
        self.until.remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_grace_period_has_an_end() {
        assert_eq!(may_run_for(Duration::from_secs(i64::MAX as u64)), LONGEST);
        assert!(std::time::Instant::now().checked_add(LONGEST).is_some());
    }

    #[test]
    fn a_vanished_pod_is_known_until_its_time_is_over() {
        let mut vanished = Vanished::default();
        vanished.insert("u", Some(30), 0);
        assert_eq!(vanished.until("u", 29), Some(30));
        assert_eq!(vanished.until("u", 30), None);
        assert_eq!(vanished.until("other", 0), None);
        vanished.insert("other", Some(60), 31);
        assert_eq!(vanished.until.len(), 1, "whose time is over is forgotten");
        vanished.remove("other");
        assert_eq!(vanished.until("other", 31), None);
    }

    #[test]
    fn what_vanished_before_the_first_list_may_run_for_a_while() {
        let mut vanished = Vanished::default();
        vanished.listed(|| Some(35));
        vanished.listed(|| Some(70));
        assert_eq!(vanished.until("stranger", 1), Some(35));
        assert_eq!(vanished.until("stranger", 35), None);
        vanished.insert("stopped", None, 2);
        assert_eq!(vanished.until("stopped", 3), None, "it was seen to stop");
        vanished.insert("short", Some(7), 2);
        assert_eq!((vanished.until("short", 6), vanished.until("short", 8)), (Some(7), None));
        vanished.insert("late", None, 40);
        assert!(vanished.seen.is_empty(), "nobody asks any more");
    }
}
