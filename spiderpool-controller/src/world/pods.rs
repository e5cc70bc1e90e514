//! Pods by their UID.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spiderpool_core::ipam::alive::Stage;
use spiderpool_core::ipam::vanished::{DEFAULT_GRACE, Vanished, may_run_for};
use spiderpool_runtime::watch::Index;

use super::slim::SlimPod;
use super::{PodId, World};

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
    /// How long it may run on if the API server forgets it now.
    pub may_run_for: Option<Duration>,
}

/// The pods, and those that vanished while they ran.
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

    /// Until when a pod may run that the API server does not have any more.
    pub fn may_run_until(&self, uid: &str, now: Timestamp) -> Option<Timestamp> {
        match self.pods.get(uid) {
            // The watch is behind.
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

impl World {
    fn id(&mut self, pod: &SlimPod) -> PodId {
        PodId {
            namespace: self.names.get(&pod.namespace),
            name: pod.name.as_str().into(),
            uid: pod.uid.as_str().into(),
        }
    }

    fn insert_pod(&mut self, pod: &SlimPod) {
        let node = self.names.get(&pod.node);
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

impl Index<SlimPod> for World {
    fn apply(&mut self, pod: SlimPod) {
        let id = self.id(&pod);
        let before = self.pods.get(&pod.uid).map(|known| (known.stage, known.deletion, known.has_stopped));
        self.insert_pod(&pod);
        // Most changes of a pod are none here.
        if before != Some((pod.stage, pod.deletion, pod.has_stopped)) {
            self.suspect(id);
        }
    }

    fn delete(&mut self, pod: &SlimPod) {
        let id = self.id(pod);
        let before = self.pods.pods.remove(pod.uid.as_str()).and_then(|before| before.may_run_for);
        // By force, a pod is deleted with a grace period of 0, and its kubelet goes by the one before.
        self.vanish(&pod.uid, pod.may_run_for.map(|time| time.max(before.unwrap_or_default())));
        self.suspect(id);
    }

    fn reset(&mut self, pods: Vec<SlimPod>) {
        let before = mem::take(&mut self.pods.pods);
        for pod in pods {
            self.insert_pod(&pod);
        }
        // Nobody has seen them go.
        for (uid, pod) in before {
            if !self.pods.pods.contains_key(&uid) {
                self.vanish(&uid, pod.may_run_for);
            }
        }
        self.pods.vanished.listed(|| after(Timestamp::now(), may_run_for(DEFAULT_GRACE)));
        self.suspect_all();
    }
}
