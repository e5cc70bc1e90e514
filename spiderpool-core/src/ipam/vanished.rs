//! Pods that the API server forgot while they ran, as `kubectl delete --force` does it. Their kubelet hears of it
//! later than everybody else and still grants them the grace period of their spec (`calculateEffectiveGracePeriod` in
//! Kubernetes' pkg/kubelet/pod_workers.go), so what they hold is in use for a while.

use std::collections::HashMap;
use std::time::Duration;

/// For the kubelet to hear of it and to take down the sandbox, on top of the grace period.
const MARGIN: Duration = Duration::from_secs(5);

/// A pod's grace period may be any number of seconds; a point of time that far in the future has no representation.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// How long a pod of this grace period may run after it has vanished.
pub fn may_run_for(grace: Duration) -> Duration {
    grace.saturating_add(MARGIN).min(LONGEST)
}

/// Such pods by their UID, and until when they may run.
#[derive(Debug, Clone)]
pub struct Vanished<T>(HashMap<Box<str>, T>);

impl<T> Default for Vanished<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Copy + Ord> Vanished<T> {
    /// The pod has vanished; those whose time is over are forgotten.
    pub fn insert(&mut self, uid: &str, until: T, now: T) {
        self.0.retain(|_, until| *until > now);
        self.0.insert(uid.into(), until);
    }

    /// Until when the pod may run, if that is still to come.
    pub fn until(&self, uid: &str, now: T) -> Option<T> {
        self.0.get(uid).copied().filter(|until| *until > now)
    }

    /// The pod is there, after all.
    pub fn remove(&mut self, uid: &str) {
        self.0.remove(uid);
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
        vanished.insert("u", 30, 0);
        assert_eq!(vanished.until("u", 29), Some(30));
        assert_eq!(vanished.until("u", 30), None);
        assert_eq!(vanished.until("other", 0), None);
        vanished.insert("other", 60, 31);
        assert_eq!(vanished.0.len(), 1, "whose time is over is forgotten");
        vanished.remove("other");
        assert_eq!(vanished.until("other", 31), None);
    }
}
