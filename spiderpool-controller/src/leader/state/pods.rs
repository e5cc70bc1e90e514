//! Pods by UID.

use std::collections::HashMap;
use std::mem;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spiderpool_core::ipam::deleted_pods::{DEFAULT_GRACE, DeletedPods, may_run_for};
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::names::{NodeName, PodIdentity, PodName, PodUid};
use spiderpool_runtime::watch::Index;

use super::ClusterState;
use super::slim::SlimPod;

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPod {
    /// Whether it runs.
    pub stage: PodStage,
    /// Whether its phase says that all its containers have stopped.
    pub has_stopped: bool,
    /// When its grace period ends.
    pub deletion: Option<Timestamp>,
    /// The node that it is bound to.
    pub node: Option<NodeName>,
    /// How long its containers may run on after its object is deleted.
    pub may_run_for: Option<Duration>,
}

/// The pods, and those whose objects were deleted while they ran.
#[derive(Debug, Clone, Default)]
pub struct PodIndex {
    pods: HashMap<PodUid, KnownPod>,
    deleted: DeletedPods<Timestamp>,
}

impl PodIndex {
    /// The pod of this UID.
    pub fn get(&self, uid: &PodUid) -> Option<&KnownPod> {
        self.pods.get(uid)
    }

    /// Until when the containers of a pod may run whose object is gone.
    pub fn may_run_until(&self, uid: &PodUid, now: Timestamp) -> Option<Timestamp> {
        match self.pods.get(uid) {
            // The watch has not delivered the deletion yet.
            Some(known) => after(now, known.may_run_for?),
            None => self.deleted.may_run_until(uid, now),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}

impl ClusterState {
    fn insert_pod(&mut self, pod: &SlimPod, uid: &PodUid) {
        let known = KnownPod {
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion,
            node: pod.node.clone().map(|node| self.interner.share(node)),
            may_run_for: pod.may_run_for,
        };
        self.pods.pods.insert(uid.clone(), known);
        self.pods.deleted.remove(uid);
    }

    fn record_deletion(&mut self, uid: &PodUid, may_run_for: Option<Duration>) {
        let now = Timestamp::now();
        self.pods.deleted.insert(uid, may_run_for.and_then(|time| after(now, time)), now);
    }

    /// The pod with its namespace shared.
    fn identity(&mut self, pod: &PodIdentity) -> PodIdentity {
        let name = PodName::new(self.interner.intern(pod.name.namespace()), pod.name.name());
        PodIdentity { name: name.unwrap_or_else(|_| pod.name.clone()), uid: pod.uid.clone() }
    }
}

fn after(at: Timestamp, time: Duration) -> Option<Timestamp> {
    at.checked_add(SignedDuration::try_from(time).ok()?).ok()
}

impl Index<SlimPod> for ClusterState {
    fn apply(&mut self, pod: SlimPod) {
        let Some(identity) = &pod.identity else { return };
        let known = self.pods.get(&identity.uid);
        let before = known.map(|known| (known.stage, known.deletion, known.has_stopped));
        self.insert_pod(&pod, &identity.uid);
        // Most updates change nothing that matters here.
        if before != Some((pod.stage, pod.deletion, pod.has_stopped)) {
            let identity = self.identity(identity);
            self.mark_pod_changed(identity);
        }
    }

    fn delete(&mut self, pod: &SlimPod) {
        let Some(identity) = &pod.identity else { return };
        let before = self.pods.pods.remove(&identity.uid).and_then(|before| before.may_run_for);
        // `kubectl delete --force` sets a grace period of 0; the kubelet still uses the one before.
        let may_run_for = pod.may_run_for.map(|time| time.max(before.unwrap_or_default()));
        self.record_deletion(&identity.uid, may_run_for);
        let identity = self.identity(identity);
        self.mark_pod_changed(identity);
    }

    fn reset(&mut self, pods: Vec<SlimPod>) {
        let before = mem::take(&mut self.pods.pods);
        for pod in pods {
            if let Some(identity) = &pod.identity {
                self.insert_pod(&pod, &identity.uid);
            }
        }
        // Deleted while the watch was interrupted.
        for (uid, pod) in before {
            if !self.pods.pods.contains_key(&uid) {
                self.record_deletion(&uid, pod.may_run_for);
            }
        }
        self.pods.deleted.listed(|| after(Timestamp::now(), may_run_for(DEFAULT_GRACE)));
        self.mark_all_changed();
    }
}
