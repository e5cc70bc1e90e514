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
    /// Until when a pod may run that was never seen: it may have been deleted just before the first list.
    unseen_until: Option<T>,
    /// Pods that went before that, in whatever way.
    seen: HashSet<PodUid>,
}

impl<T> Default for DeletedPods<T> {
    fn default() -> Self {
        Self { may_run_until: HashMap::new(), unseen_until: None, seen: HashSet::new() }
    }
}

impl<T: Copy + Ord> DeletedPods<T> {
    /// The pods have been listed. What was deleted before the first list may run until `unseen_until`.
    pub fn listed(&mut self, unseen_until: impl FnOnce() -> Option<T>) {
        if self.unseen_until.is_none() {
            self.unseen_until = unseen_until();
        }
    }

    /// The pod is gone and may run until then; `None`: it had stopped.
    pub fn insert(&mut self, uid: &PodUid, may_run_until: Option<T>, now: T) {
        self.may_run_until.retain(|_, until| *until > now);
        if let Some(until) = may_run_until {
            self.may_run_until.insert(uid.clone(), until);
        }
        if self.unseen_until.is_some_and(|until| until > now) {
            self.seen.insert(uid.clone());
        } else {
            self.seen = HashSet::new();
        }
    }

    /// Until when the pod may run, if that is still to come. To be asked of pods that are gone.
    pub fn may_run_until(&self, uid: &PodUid, now: T) -> Option<T> {
        let unseen = || self.unseen_until.filter(|_| !self.seen.contains(uid));
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

    #[test]
    fn a_deleted_pod_is_known_until_its_time_is_over() {
        let mut deleted = DeletedPods::default();
        deleted.insert(&uid("u"), Some(30), 0);
        assert_eq!(deleted.may_run_until(&uid("u"), 29), Some(30));
        assert_eq!(deleted.may_run_until(&uid("u"), 30), None);
        assert_eq!(deleted.may_run_until(&uid("other"), 0), None);
        deleted.insert(&uid("other"), Some(60), 31);
        assert_eq!(deleted.may_run_until.len(), 1, "whose time is over is forgotten");
        deleted.remove(&uid("other"));
        assert_eq!(deleted.may_run_until(&uid("other"), 31), None);
    }

    #[test]
    fn what_was_deleted_before_the_first_list_may_run_for_a_while() {
        let mut deleted = DeletedPods::default();
        deleted.listed(|| Some(35));
        deleted.listed(|| Some(70));
        let until = |deleted: &DeletedPods<_>, name, now| deleted.may_run_until(&uid(name), now);
        assert_eq!(until(&deleted, "unknown", 1), Some(35));
        assert_eq!(until(&deleted, "unknown", 35), None);
        deleted.insert(&uid("stopped"), None, 2);
        assert_eq!(until(&deleted, "stopped", 3), None, "it was seen to stop");
        deleted.insert(&uid("short"), Some(7), 2);
        assert_eq!((until(&deleted, "short", 6), until(&deleted, "short", 8)), (Some(7), None));
        deleted.insert(&uid("late"), None, 40);
        assert!(deleted.seen.is_empty(), "nobody asks any more");
    }
}
