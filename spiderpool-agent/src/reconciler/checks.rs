//! Which running pods are looked at next: all of them every few seconds, and at once what the kernel reports of.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use spiderpool_core::names::{ContainerId, IfName};

/// After a report more follow, and the agent's own work may be what is reported.
const SETTLE: Duration = Duration::from_millis(200);
/// The plugin that has registered a pod goes on in it; what it has not done yet is nobody's fault.
const ADD: Duration = Duration::from_secs(5);
/// Somebody who takes away at once what was put right is met by the sweep alone.
const REST: Duration = Duration::from_secs(2);

/// Pods to be looked at.
#[derive(Debug, Default)]
pub(super) struct Checks {
    sweep: VecDeque<ContainerId>,
    reported: BTreeMap<ContainerId, Instant>,
    restored: HashMap<ContainerId, Instant>,
    registered: HashMap<ContainerId, Instant>,
    missing: HashMap<ContainerId, Vec<IfName>>,
}

impl Checks {
    /// All pods, unless the last sweep still goes on.
    pub(super) fn begin_sweep(&mut self, pods: impl Iterator<Item = ContainerId>, now: Instant) {
        self.restored.retain(|_, then| now.saturating_duration_since(*then) < REST);
        self.registered.retain(|_, then| now.saturating_duration_since(*then) < ADD);
        if self.sweep.is_empty() {
            self.sweep.extend(pods.filter(|pod| !self.registered.contains_key(pod)));
            self.missing.retain(|pod, _| self.sweep.contains(pod));
        }
    }

    /// The kernel has reported a change of a pod's.
    pub(super) fn report(&mut self, pod: ContainerId, now: Instant) {
        let rests = self.restored.get(&pod).is_some_and(|then| now.saturating_duration_since(*then) < REST);
        if !rests && !self.registered.contains_key(&pod) {
            self.reported.entry(pod).or_insert(now + SETTLE);
        }
    }

    /// The plugin sets the pod up.
    pub(super) fn registered(&mut self, pod: ContainerId, now: Instant) {
        self.sweep.retain(|queued| *queued != pod);
        self.reported.remove(&pod);
        self.registered.insert(pod, now);
    }

    /// Something of the pod was put right.
    pub(super) fn restored(&mut self, pod: ContainerId, now: Instant) {
        self.restored.insert(pod, now);
    }

    /// The NICs of a pod that were not missing at the last look.
    pub(super) fn newly_missing(&mut self, pod: &ContainerId, missing: &[IfName]) -> Vec<IfName> {
        let before = self.missing.remove(pod).unwrap_or_default();
        if !missing.is_empty() {
            self.missing.insert(pod.clone(), missing.to_vec());
        }
        missing.iter().filter(|nic| !before.contains(nic)).cloned().collect()
    }

    /// When there is something to look at.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        if self.sweep.is_empty() { self.reported.values().min().copied() } else { Some(now) }
    }

    /// The pod to look at now.
    pub(super) fn next(&mut self, now: Instant) -> Option<ContainerId> {
        let due = self.reported.iter().find(|(_, due)| **due <= now).map(|(pod, _)| pod.clone());
        if let Some(pod) = due {
            self.reported.remove(&pod);
            return Some(pod);
        }
        self.sweep.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_comes_first_and_a_pod_that_was_put_right_waits_for_the_sweep() {
        let (mut checks, start) = (Checks::default(), Instant::now());
        let pod = |name: &str| name.parse::<ContainerId>().unwrap();
        assert_eq!(checks.due(start), None);
        checks.report(pod("b"), start);
        assert_eq!((checks.due(start), checks.next(start)), (Some(start + SETTLE), None));
        let later = start + SETTLE;
        checks.begin_sweep([pod("a"), pod("b")].into_iter(), later);
        checks.begin_sweep([pod("c")].into_iter(), later);
        assert_eq!(checks.due(later), Some(later));
        assert_eq!(
            [(); 4].map(|()| checks.next(later)),
            [Some(pod("b")), Some(pod("a")), Some(pod("b")), None]
        );
        checks.restored(pod("b"), later);
        checks.report(pod("b"), later);
        assert_eq!(checks.due(later), None);
        checks.report(pod("b"), later + REST);
        assert_eq!(checks.due(later), Some(later + REST + SETTLE));
        checks.registered(pod("b"), later + REST);
        checks.report(pod("b"), later + REST);
        checks.begin_sweep([pod("b")].into_iter(), later + REST);
        assert_eq!(checks.due(later), None, "its ADD goes on");
        checks.begin_sweep([pod("b")].into_iter(), later + REST + ADD);
        assert_eq!(checks.next(later), Some(pod("b")));
    }
}
