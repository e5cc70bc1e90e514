//! Pods by UID.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spiderpool_core::ipam::deleted_pods::DeletedPods;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::names::{NodeName, PodUid};

use super::interner::Interner;
use super::slim::SlimPod;

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownPod {
    /// Whether it runs.
    pub(crate) stage: PodStage,
    /// Whether its phase says that all its containers have stopped.
    pub(crate) has_stopped: bool,
    /// When its grace period ends.
    pub(crate) deletion: Option<Timestamp>,
    /// Until when something of it may run, although it was seen finished.
    pub(crate) finishes_at: Option<Timestamp>,
    /// The node that it is bound to.
    pub(crate) node: Option<NodeName>,
    /// How long its containers may run on after its object is deleted.
    pub(crate) may_run_for: Option<Duration>,
}

/// The pods, and those whose objects were deleted while they ran.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodIndex {
    pods: HashMap<PodUid, KnownPod>,
    deleted: DeletedPods<Timestamp>,
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
        now: Timestamp,
    ) -> Option<Timestamp> {
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
        let before = known.map(|known| (known.stage, known.deletion, known.has_stopped));
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
        self.deleted.listed(Timestamp::now(), after);
    }

    fn insert(&mut self, pod: &SlimPod, uid: &PodUid, interner: &mut Interner) {
        let is_finished = pod.stage == PodStage::Finished;
        let known_end = || self.get(uid).and_then(|known| known.finishes_at);
        let end = || known_end().or_else(|| after(Timestamp::now(), pod.stops_within));
        let known = KnownPod {
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion,
            finishes_at: is_finished.then(end).flatten(),
            node: pod.node.clone().map(|node| interner.share(node)),
            may_run_for: pod.may_run_for,
        };
        self.pods.insert(uid.clone(), known);
        self.deleted.remove(uid);
    }

    /// Pod garbage collection sets a final phase and deletes the pod at once: it may run until `finishes_at` all the same.
    fn record_deletion(
        &mut self,
        uid: &PodUid,
        may_run_for: Option<Duration>,
        finishes_at: Option<Timestamp>,
    ) {
        let now = Timestamp::now();
        let until = may_run_for.and_then(|time| after(now, time));
        self.deleted.insert(uid, until.max(finishes_at), now);
    }
}

fn after(at: Timestamp, time: Duration) -> Option<Timestamp> {
    at.checked_add(SignedDuration::try_from(time).ok()?).ok()
}
