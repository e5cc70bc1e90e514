//! Which running pods are looked at next: all of them every few seconds, and at once what the kernel reports of.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use spiderpool_core::names::{ContainerId, IfName};

use super::reported::Reported;

/// After a report more follow, and the agent's own work may be what is reported.
const SETTLE: Duration = Duration::from_millis(200);
/// The plugin that has registered a pod goes on in it, usually not so long. The first look that finds the pod whole shows
/// that it has ended.
const ADD: Duration = Duration::from_secs(5);
/// Longer than any runtime waits for an ADD.
const LONGEST_ADD: Duration = Duration::from_mins(5);
/// Between two looks at a pod for what the kernel reports: neither who takes away at once what was put right nor who
/// makes the kernel report all the time keeps the reconciler busy.
const REST: Duration = Duration::from_secs(2);

/// The plugin that removes a NIC takes its addresses first; the rest of its work, and the agent's, is done by then.
const DEL: Duration = Duration::from_mins(1);

/// Whether a pod is to be left alone because a NIC of it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// None is.
    None,
    /// It is left alone.
    GoesOn,
    /// It is not any more, and that is to be said.
    TooLong,
}

#[derive(Debug, Default)]
struct PossibleRemoval {
    since: Option<Instant>,
    is_said: bool,
}

/// Pods to be looked at.
#[derive(Debug, Default)]
pub(super) struct Checks {
    sweep: VecDeque<ContainerId>,
    /// When each is due.
    due: BTreeMap<ContainerId, Instant>,
    reported: Reported,
    looked_at: HashMap<ContainerId, Instant>,
    registered: HashMap<ContainerId, Instant>,
    /// NICs that were missing at a look since they were registered.
    missing: HashMap<ContainerId, BTreeSet<IfName>>,
    removed: HashMap<ContainerId, PossibleRemoval>,
    /// Of which something was put right since they were registered.
    restored: HashSet<ContainerId>,
}

impl Checks {
    /// `reported` is where reports come from: a pod leaves it when it is looked at.
    pub(super) fn new(reported: Reported) -> Self {
        Self { reported, ..Self::default() }
    }

    /// All pods, unless the last sweep still goes on.
    pub(super) fn begin_sweep(&mut self, pods: impl Iterator<Item = ContainerId>, now: Instant) {
        self.looked_at.retain(|_, then| now.saturating_duration_since(*then) < REST);
        self.registered.retain(|_, then| now.saturating_duration_since(*then) < LONGEST_ADD);
        if self.sweep.is_empty() {
            let begins = |pod: &ContainerId| {
                self.registered.get(pod).is_some_and(|then| now.saturating_duration_since(*then) < ADD)
            };
            self.sweep.extend(pods.filter(|pod| !begins(pod)));
        }
    }

    /// The kernel has reported a change of a pod's.
    pub(super) fn report(&mut self, pod: ContainerId, now: Instant) {
        let rested = self.looked_at.get(&pod).map(|then| *then + REST);
        let set_up = self.registered.get(&pod).map(|then| *then + ADD);
        let due = [rested, set_up].into_iter().flatten().fold(now + SETTLE, Instant::max);
        self.due.entry(pod).or_insert(due);
    }

    /// The plugin sets the pod up.
    pub(super) fn registered(&mut self, pod: ContainerId, now: Instant) {
        self.sweep.retain(|queued| *queued != pod);
        if let Some(due) = self.due.get_mut(&pod) {
            *due = now + ADD;
        }
        self.missing.remove(&pod);
        self.removed.remove(&pod);
        self.registered.insert(pod, now);
    }

    /// A look has found the pod whole, or not. Answers whether what it lacks is another program's doing, and not what
    /// its ADD has still to do.
    pub(super) fn found(&mut self, pod: &ContainerId, is_whole: bool) -> bool {
        if is_whole {
            self.registered.remove(pod);
        }
        !self.registered.contains_key(pod)
    }

    /// Something of the pod was put right.
    pub(super) fn restored(&mut self, pod: ContainerId, now: Instant) {
        self.restored.insert(pod.clone());
        self.looked_at.insert(pod, now);
    }

    /// Whether something of the pod has been put right.
    pub(super) fn is_restored(&self, pod: &ContainerId) -> bool {
        self.restored.contains(pod)
    }

    /// The pod has no NICs any more.
    pub(super) fn unregistered(&mut self, pod: &ContainerId) {
        self.restored.remove(pod);
        self.missing.remove(pod);
        self.removed.remove(pod);
    }

    /// The NICs of a pod that were not missing at any look before: a process in the pod may hide and show them.
    pub(super) fn newly_missing(&mut self, pod: &ContainerId, missing: &[IfName]) -> Vec<IfName> {
        if missing.is_empty() {
            return Vec::new();
        }
        let before = self.missing.entry(pod.clone()).or_default();
        missing.iter().filter(|nic| before.insert((*nic).clone())).cloned().collect()
    }

    /// What it means that these NICs of a pod have none of their addresses.
    pub(super) fn removal(&mut self, pod: &ContainerId, nics: &[IfName], now: Instant) -> Removal {
        if nics.is_empty() {
            if let Some(removed) = self.removed.get_mut(pod) {
                removed.since = None;
            }
            return Removal::None;
        }
        let removed = self.removed.entry(pod.clone()).or_default();
        if now.saturating_duration_since(*removed.since.get_or_insert(now)) < DEL {
            return Removal::GoesOn;
        }
        if std::mem::replace(&mut removed.is_said, true) { Removal::None } else { Removal::TooLong }
    }

    /// When there is something to look at.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        if self.sweep.is_empty() { self.due.values().min().copied() } else { Some(now) }
    }

    /// The pod to look at now.
    pub(super) fn next(&mut self, now: Instant) -> Option<ContainerId> {
        let due = self.due.iter().find(|(_, due)| **due <= now).map(|(pod, _)| pod.clone());
        let Some(pod) = due else { return self.sweep.pop_front() };
        self.due.remove(&pod);
        self.reported.remove(&pod);
        self.looked_at.insert(pod.clone(), now);
        Some(pod)
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
        checks.report(pod("b"), later);
        assert_eq!(checks.due(later), Some(later + REST));
        checks.registered(pod("b"), later + SETTLE);
        checks.report(pod("b"), later + REST);
        checks.begin_sweep([pod("b")].into_iter(), later + REST);
        assert_eq!(checks.due(later), Some(later + SETTLE + ADD), "its ADD goes on");
        assert_eq!(checks.next(later + REST), None);
        checks.begin_sweep([pod("b")].into_iter(), later + SETTLE + ADD);
        assert_eq!(
            [(); 3].map(|()| checks.next(later + SETTLE + ADD)),
            [Some(pod("b")), Some(pod("b")), None]
        );
    }

    #[test]
    fn what_an_add_has_not_done_yet_is_nobodys_doing_until_the_pod_was_whole_once() {
        let (mut checks, start) = (Checks::default(), Instant::now());
        let pod = "a".parse::<ContainerId>().unwrap();
        assert!(checks.found(&pod, false), "of an agent before this one");
        checks.registered(pod.clone(), start);
        checks.begin_sweep([pod.clone()].into_iter(), start + ADD - SETTLE);
        assert_eq!(checks.next(start + ADD - SETTLE), None);
        checks.begin_sweep([pod.clone()].into_iter(), start + 10 * ADD);
        assert_eq!(checks.next(start + 10 * ADD), Some(pod.clone()));
        assert!(!checks.found(&pod, false), "a slow ADD");
        assert!(checks.found(&pod, true) && checks.found(&pod, false));
        checks.registered(pod.clone(), start);
        checks.begin_sweep(std::iter::empty(), start + LONGEST_ADD);
        assert!(checks.found(&pod, false), "no ADD lasts so long");
    }

    #[test]
    fn a_nic_without_addresses_is_a_del_for_a_minute_and_said_once_afterwards() {
        let (mut checks, start) = (Checks::default(), Instant::now());
        let (pod, net1) = ("a".parse::<ContainerId>().unwrap(), "net1".parse::<IfName>().unwrap());
        let mut after =
            |nics: &[IfName], seconds| checks.removal(&pod, nics, start + Duration::from_secs(seconds));
        let without = [net1];
        assert_eq!(after(&[], 0), Removal::None);
        assert_eq!([after(&without, 5), after(&without, 64)], [Removal::GoesOn; 2]);
        assert_eq!([after(&without, 65), after(&without, 70)], [Removal::TooLong, Removal::None]);
        assert_eq!([after(&[], 75), after(&without, 80)], [Removal::None, Removal::GoesOn]);
        assert_eq!(after(&without, 140), Removal::None, "said already");
    }

    #[test]
    fn a_nic_that_comes_and_goes_in_the_pod_is_said_once() {
        let (mut checks, pod) = (Checks::default(), "a".parse::<ContainerId>().unwrap());
        let missing = ["net1".parse::<IfName>().unwrap()];
        assert_eq!(checks.newly_missing(&pod, &missing), missing);
        assert_eq!(checks.newly_missing(&pod, &[]), []);
        assert_eq!(checks.newly_missing(&pod, &missing), []);
        checks.unregistered(&pod);
        assert_eq!(checks.newly_missing(&pod, &missing), missing);
    }

    #[test]
    fn a_pod_of_which_the_kernel_reports_without_end_is_looked_at_every_few_seconds() {
        let (reported, start) = (Reported::default(), Instant::now());
        let (mut checks, pod) = (Checks::new(reported.clone()), "a".parse::<ContainerId>().unwrap());
        let (mut sent, mut looks) = (0, 0);
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            if reported.add(&pod) {
                sent += 1;
                checks.report(pod.clone(), now);
            }
            looks += usize::from(checks.next(now).is_some());
        }
        assert_eq!((sent, looks), (6, 5));
    }
}
