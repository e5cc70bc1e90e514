//! Pods by UID.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use spiderpool_core::ipam::deleted_pods::DeletedPods;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::names::{NodeName, PodUid};

use super::interner::Interner;
use super::slim::SlimPod;

/// The agent of a pod's node looks at its processes when its time is over, and says by its Lease if it has any.
const AGENT_TIME: Duration = Duration::from_secs(10);

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownPod {
    /// Whether it runs.
    pub(crate) stage: PodStage,
    /// Whether its phase says that all its containers have stopped.
    pub(crate) has_stopped: bool,
    /// If it is terminating.
    pub(crate) deletion: Option<PodDeletion>,
    /// Until when something of it may run, although it was seen finished.
    pub(crate) finishes_at: Option<Instant>,
    /// The node that it is bound to.
    pub(crate) node: Option<NodeName>,
    /// How long its containers may run on after its object is deleted.
    pub(crate) may_run_for: Option<Duration>,
}

/// A pod's grace period. Its end is counted from when the deletion was seen here: clocks of two machines do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PodDeletion {
    pub(crate) grace: Duration,
    /// `None`: farther away than can be said.
    pub(crate) ends_at: Option<Instant>,
}

impl PodDeletion {
    /// `before` is what was known of it.
    fn seen(grace: Duration, before: Option<Self>) -> Self {
        match before {
            Some(before) if before.grace == grace => before,
            // It was deleted again, which can only shorten it.
            before => {
                let ends_at = after(Instant::now(), grace);
                let known = before.and_then(|before| before.ends_at);
                Self { grace, ends_at: ends_at.into_iter().chain(known).min() }
            }
        }
    }
}

/// The pods, and those whose objects were deleted while they ran.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodIndex {
    pods: HashMap<PodUid, KnownPod>,
    deleted: DeletedPods<Instant>,
}

impl PodIndex {
    /// The pod of this UID.
    pub(crate) fn get(&self, uid: &PodUid) -> Option<&KnownPod> {
        self.pods.get(uid)
    }

    /// Until when the containers of a pod may run whose object is gone. `grace` is its grace period by the objects of its
    /// addresses.
    pub(crate) fn may_run_until(
        &self,
        uid: &PodUid,
        grace: Option<Duration>,
        now: Instant,
    ) -> Option<Instant> {
        match self.pods.get(uid) {
            // The watch has not delivered the deletion yet.
            Some(known) => known.may_run_for.and_then(|time| after(now, time)).max(known.finishes_at),
            None => self.deleted.may_run_until(uid, grace, now, after),
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pods.len()
    }

    /// Adds or replaces a pod; whether anything has changed that decides about its addresses.
    pub(super) fn apply(&mut self, pod: &SlimPod, uid: &PodUid, interner: &mut Interner) -> bool {
        let known = self.get(uid);
        let grace = |known: &KnownPod| known.deletion.map(|deletion| deletion.grace);
        let before = known.map(|known| (known.stage, grace(known), known.has_stopped));
        self.insert(pod, uid, interner);
        before != Some((pod.stage, pod.deletion, pod.has_stopped))
    }

    /// The pod's object was deleted; its containers may run on for a while.
    pub(super) fn delete(&mut self, pod: &SlimPod, uid: &PodUid) {
        let before = self.pods.remove(uid);
        let finishes_at = before.as_ref().and_then(|before| before.finishes_at);
        let before = before.and_then(|before| before.may_run_for);
        // `kubectl delete --force` sets a grace period of 0; the kubelet still uses the one before.
        let may_run_for = pod.may_run_for.map(|time| time.max(before.unwrap_or_default()));
        self.record_deletion(uid, may_run_for, finishes_at);
    }

    /// Only these pods exist.
    pub(super) fn reset(&mut self, pods: &[SlimPod], interner: &mut Interner) {
        let listed: HashSet<&PodUid> =
            pods.iter().filter_map(|pod| pod.identity.as_ref()).map(|identity| &identity.uid).collect();
        // Deleted while the watch was interrupted.
        for (uid, pod) in self.pods.extract_if(|uid, _| !listed.contains(uid)).collect::<Vec<_>>() {
            self.record_deletion(&uid, pod.may_run_for, pod.finishes_at);
        }
        for pod in pods {
            if let Some(identity) = &pod.identity {
                self.insert(pod, &identity.uid, interner);
            }
        }
        self.deleted.listed(Instant::now(), after);
    }

    fn insert(&mut self, pod: &SlimPod, uid: &PodUid, interner: &mut Interner) {
        let is_finished = pod.stage == PodStage::Finished;
        let known_end = || self.get(uid).and_then(|known| known.finishes_at);
        let known_deletion = || self.get(uid).and_then(|known| known.deletion);
        let end = || known_end().or_else(|| after(Instant::now(), pod.stops_within));
        let known = KnownPod {
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion.map(|grace| PodDeletion::seen(grace, known_deletion())),
            finishes_at: is_finished.then(end).flatten(),
            node: pod.node.clone().map(|node| interner.share(node)),
            may_run_for: pod.may_run_for,
        };
        self.pods.insert(interner.share(uid.clone()), known);
        self.deleted.remove(uid);
    }

    /// Pod garbage collection sets a final phase and deletes the pod at once: it may run until `finishes_at` all the same.
    fn record_deletion(&mut self, uid: &PodUid, may_run_for: Option<Duration>, finishes_at: Option<Instant>) {
        let now = Instant::now();
        let until = may_run_for.and_then(|time| after(now, time.saturating_add(AGENT_TIME)));
        self.deleted.insert(uid, until.max(finishes_at), now);
    }
}

fn after(at: Instant, time: Duration) -> Option<Instant> {
    at.checked_add(time)
}
