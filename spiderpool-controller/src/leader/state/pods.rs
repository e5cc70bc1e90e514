//! Pods by UID.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spiderpool_core::ipam::deleted_pods::{DEFAULT_GRACE, DeletedPods, may_run_for};
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

    /// Until when the containers of a pod may run whose object is gone.
    pub(crate) fn may_run_until(&self, uid: &PodUid, now: Timestamp) -> Option<Timestamp> {
        match self.pods.get(uid) {
            // The watch has not delivered the deletion yet.
            Some(known) => after(now, known.may_run_for?),
            None => self.deleted.may_run_until(uid, now),
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
        let before = self.pods.remove(uid).and_then(|before| before.may_run_for);
        // `kubectl delete --force` sets a grace period of 0; the kubelet still uses the one before.
        let may_run_for = pod.may_run_for.map(|time| time.max(before.unwrap_or_default()));
        self.record_deletion(uid, may_run_for);
    }

    /// Only these pods exist.
    pub(super) fn reset(&mut self, pods: &[SlimPod], interner: &mut Interner) {
        let before = mem::take(&mut self.pods);
        for pod in pods {
            if let Some(identity) = &pod.identity {
                self.insert(pod, &identity.uid, interner);
            }
        }
        // Deleted while the watch was interrupted.
        for (uid, pod) in before {
            if !self.pods.contains_key(&uid) {
                self.record_deletion(&uid, pod.may_run_for);
            }
        }
        self.deleted.listed(|| after(Timestamp::now(), may_run_for(DEFAULT_GRACE)));
    }

    fn insert(&mut self, pod: &SlimPod, uid: &PodUid, interner: &mut Interner) {
        let known = KnownPod {
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion,
            node: pod.node.clone().map(|node| interner.share(node)),
            may_run_for: pod.may_run_for,
        };
        self.pods.insert(uid.clone(), known);
        self.deleted.remove(uid);
    }

    fn record_deletion(&mut self, uid: &PodUid, may_run_for: Option<Duration>) {
        let now = Timestamp::now();
        self.deleted.insert(uid, may_run_for.and_then(|time| after(now, time)), now);
    }
}

fn after(at: Timestamp, time: Duration) -> Option<Timestamp> {
    at.checked_add(SignedDuration::try_from(time).ok()?).ok()
}
