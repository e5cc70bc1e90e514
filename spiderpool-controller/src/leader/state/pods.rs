//! Pods by UID.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spiderpool_core::ipam::alive::Stage;
use spiderpool_core::ipam::vanished::{DEFAULT_GRACE, Vanished, may_run_for};
use spiderpool_runtime::watch::Index;

use super::slim::SlimPod;
use super::{ClusterState, PodId};

/// What is kept of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPod {
    /// Whether it runs.
    pub stage: Stage,
    /// Whether its phase says that all its containers have stopped.
    pub has_stopped: bool,
    /// When its grace period ends.
    pub deletion: Option<Timestamp>,
    /// The node that it is bound to; empty before that.
    pub node: Arc<str>,
    /// How long its containers may run on after its object is deleted.
    pub may_run_for: Option<Duration>,
}

/// The pods, and those whose objects were deleted while they ran.
#[derive(Debug, Clone, Default)]
pub struct PodIndex {
    pods: HashMap<Box<str>, KnownPod>,
    vanished: Vanished<Timestamp>,
}

impl PodIndex {
    /// The pod of this UID.
    pub fn get(&self, uid: &str) -> Option<&KnownPod> {
        self.pods.get(uid)
    }

    /// Until when the containers of a pod may run whose object is gone.
    pub fn may_run_until(&self, uid: &str, now: Timestamp) -> Option<Timestamp> {
        match self.pods.get(uid) {
            // The watch has not delivered the deletion yet.
            Some(known) => after(now, known.may_run_for?),
            None => self.vanished.until(uid, now),
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
    fn id(&mut self, pod: &SlimPod) -> PodId {
        PodId {
            namespace: self.interner.intern(&pod.namespace),
            name: pod.name.as_str().into(),
            uid: pod.uid.as_str().into(),
        }
    }

    fn insert_pod(&mut self, pod: &SlimPod) {
        let node = self.interner.intern(&pod.node);
        let known = KnownPod {
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion,
            node,
            may_run_for: pod.may_run_for,
        };
        self.pods.pods.insert(pod.uid.as_str().into(), known);
        self.pods.vanished.remove(&pod.uid);
    }

    fn vanish(&mut self, uid: &str, may_run_for: Option<Duration>) {
        let now = Timestamp::now();
        self.pods.vanished.insert(uid, may_run_for.and_then(|time| after(now, time)), now);
    }
}

fn after(at: Timestamp, time: Duration) -> Option<Timestamp> {
    at.checked_add(SignedDuration::try_from(time).ok()?).ok()
}

impl Index<SlimPod> for ClusterState {
    fn apply(&mut self, pod: SlimPod) {
        let id = self.id(&pod);
        let before = self.pods.get(&pod.uid).map(|known| (known.stage, known.deletion, known.has_stopped));
        self.insert_pod(&pod);
        // Most updates change nothing that matters here.
        if before != Some((pod.stage, pod.deletion, pod.has_stopped)) {
            self.mark_pod_changed(id);
        }
    }

    fn delete(&mut self, pod: &SlimPod) {
        let id = self.id(pod);
        let before = self.pods.pods.remove(pod.uid.as_str()).and_then(|before| before.may_run_for);
        // `kubectl delete --force` sets a grace period of 0; the kubelet still uses the one before.
        self.vanish(&pod.uid, pod.may_run_for.map(|time| time.max(before.unwrap_or_default())));
        self.mark_pod_changed(id);
    }

    fn reset(&mut self, pods: Vec<SlimPod>) {
        let before = mem::take(&mut self.pods.pods);
        for pod in pods {
            self.insert_pod(&pod);
        }
        // Deleted while the watch was interrupted.
        for (uid, pod) in before {
            if !self.pods.pods.contains_key(&uid) {
                self.vanish(&uid, pod.may_run_for);
            }
        }
        self.pods.vanished.listed(|| after(Timestamp::now(), may_run_for(DEFAULT_GRACE)));
        self.mark_all_changed();
    }
}
