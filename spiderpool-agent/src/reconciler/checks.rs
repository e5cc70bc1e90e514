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

/// Between two looks at a pod of which one costs too much.
const EXPENSIVE: Duration = Duration::from_mins(10);

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
    /// Until when a pod is not looked at, of those of which a look has cost too much.
    left_out: HashMap<ContainerId, Instant>,
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
            let is_left_out = |pod: &ContainerId| self.left_out.get(pod).is_some_and(|until| now < *until);
            self.sweep.extend(pods.filter(|pod| !begins(pod) && !is_left_out(pod)));
        }
    }

    /// The kernel has reported a change of a pod's.
    pub(super) fn report(&mut self, pod: ContainerId, now: Instant) {
        let rested = self.looked_at.get(&pod).map(|then| *then + REST);
        let set_up = self.registered.get(&pod).map(|then| *then + ADD);
        let due = [rested, set_up, self.left_out.get(&pod).copied()]
            .into_iter()
            .flatten()
            .fold(now + SETTLE, Instant::max);
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
        self.left_out.remove(&pod);
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
        self.left_out.remove(pod);
    }

    /// The look at the pod has cost too much. Answers whether that is to be said.
    pub(super) fn leave_out(&mut self, pod: &ContainerId, now: Instant) -> bool {
        if let Some(due) = self.due.get_mut(pod) {
            *due = now + EXPENSIVE;
        }
        self.left_out.insert(pod.clone(), now + EXPENSIVE).is_none()
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
mod tests;
