//! Pods that are gone from the API server while they may still run, as `kubectl delete --force` does it. Their kubelet sees it
//! later than everybody else and still grants them their grace period (`calculateEffectiveGracePeriod` in Kubernetes'
//! pkg/kubelet/pod_workers.go), so what they hold is in use for a while.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::names::PodUid;

/// The grace period of a pod that names none (`DefaultTerminationGracePeriodSeconds`).
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// For the kubelet to see it and to take down the sandbox, on top of the grace period.
const MARGIN: Duration = Duration::from_secs(5);

/// Pods that go are remembered for so long after the first list, whatever became of them. One that was never seen may run no
/// longer, whatever its grace period: it could not be told from one that was seen to stop.
const SEEN_FOR: Duration = Duration::from_hours(1);

/// A pod's grace period may be any number of seconds; a point of time that far in the future has no representation.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// How long a pod of this grace period may run after it has vanished.
pub fn may_run_for(grace: Duration) -> Duration {
    grace.saturating_add(MARGIN).min(LONGEST)
}

/// Which pods may run although they are gone, by their UIDs. `T` is a point of time.
#[derive(Debug, Clone)]
pub struct DeletedPods<T> {
    /// Until when the pods may run that were there and are gone.
    may_run_until: HashMap<PodUid, T>,
    /// When the pods were listed first: one that was never seen may have been deleted just before.
    listed_at: Option<T>,
    /// Pods that went in the first time after that, in whatever way.
    seen: HashSet<PodUid>,
    /// When that time is over.
    seen_until: Option<T>,
}

impl<T> Default for DeletedPods<T> {
    fn default() -> Self {
        Self { may_run_until: HashMap::new(), listed_at: None, seen: HashSet::new(), seen_until: None }
    }
}

impl<T: Copy + Ord> DeletedPods<T> {
    /// The pods have been listed. `after` adds to a point of time, if it can.
    pub fn listed(&mut self, now: T, after: impl FnOnce(T, Duration) -> Option<T>) {
        if self.listed_at.is_none() {
            self.listed_at = Some(now);
            self.seen_until = after(now, SEEN_FOR);
        }
    }

    /// The pod is gone and may run until then; `None`: it had stopped.
    pub fn insert(&mut self, uid: &PodUid, may_run_until: Option<T>, now: T) {
        self.may_run_until.retain(|_, until| *until > now);
        if let Some(until) = may_run_until {
            self.may_run_until.insert(uid.clone(), until);
        }
        if self.seen_until.is_some_and(|until| until > now) {
            self.seen.insert(uid.clone());
        } else {
            self.seen = HashSet::new();
        }
    }

    /// Until when the pod may run, if that is still to come. To be asked of pods that are gone. `grace` is what the objects
    /// of its addresses say of its grace period: one that nobody here has seen may run for so long after the first list.
    pub fn may_run_until(
        &self,
        uid: &PodUid,
        grace: Option<Duration>,
        now: T,
        after: impl FnOnce(T, Duration) -> Option<T>,
    ) -> Option<T> {
        let unseen = || {
            let listed_at = self.listed_at.filter(|_| !self.seen.contains(uid))?;
            after(listed_at, may_run_for(grace.unwrap_or(DEFAULT_GRACE)).min(SEEN_FOR))
        };
        self.may_run_until.get(uid).copied().or_else(unseen).filter(|until| *until > now)
    }

    /// The pod is there, after all.
    pub fn remove(&mut self, uid: &PodUid) {
        self.may_run_until.remove(uid);
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

    fn uid(text: &str) -> PodUid {
        text.parse().unwrap()
    }

    fn until(deleted: &DeletedPods<u64>, name: &str, now: u64) -> Option<u64> {
        deleted.may_run_until(&uid(name), None, now, after)
    }

    fn after(at: u64, time: Duration) -> Option<u64> {
        at.checked_add(time.as_secs())
    }

    #[test]
    fn a_deleted_pod_is_known_until_its_time_is_over() {
        let mut deleted = DeletedPods::default();
        deleted.insert(&uid("u"), Some(30), 0);
        assert_eq!(until(&deleted, "u", 29), Some(30));
        assert_eq!(until(&deleted, "u", 30), None);
        assert_eq!(until(&deleted, "other", 0), None);
        deleted.insert(&uid("other"), Some(60), 31);
        assert_eq!(deleted.may_run_until.len(), 1, "whose time is over is forgotten");
        deleted.remove(&uid("other"));
        assert_eq!(until(&deleted, "other", 31), None);
    }

    #[test]
    fn what_was_deleted_before_the_first_list_may_run_for_a_while() {
        let mut deleted = DeletedPods::default();
        deleted.listed(0, after);
        deleted.listed(35, after);
        assert_eq!(until(&deleted, "unknown", 1), Some(35));
        assert_eq!(until(&deleted, "unknown", 35), None);
        deleted.insert(&uid("stopped"), None, 2);
        assert_eq!(until(&deleted, "stopped", 3), None, "it was seen to stop");
        deleted.insert(&uid("short"), Some(7), 2);
        assert_eq!((until(&deleted, "short", 6), until(&deleted, "short", 8)), (Some(7), None));
        deleted.insert(&uid("late"), None, SEEN_FOR.as_secs());
        assert!(deleted.seen.is_empty(), "few ask any more");
    }

    /// The address says it, also to who has just started.
    #[test]
    fn an_unseen_pod_may_run_for_the_grace_period_that_its_address_says() {
        let mut deleted = DeletedPods::default();
        let until = |deleted: &DeletedPods<u64>, grace, now| {
            deleted.may_run_until(&uid("u"), Some(Duration::from_secs(grace)), now, after)
        };
        assert_eq!(until(&deleted, 600, 0), None, "nothing was listed");
        deleted.listed(100, after);
        assert_eq!((until(&deleted, 600, 101), until(&deleted, 600, 705)), (Some(705), None));
        assert_eq!(until(&deleted, 0, 101), Some(105));
        assert_eq!(until(&deleted, u64::MAX, 101), Some(100 + SEEN_FOR.as_secs()));
        deleted.insert(&uid("u"), None, 101);
        assert_eq!(until(&deleted, 600, 102), None, "it was seen to stop");
    }
}
