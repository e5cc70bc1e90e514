//! Pods by their UID.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use spiderpool_core::ipam::alive::Stage;
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
}

/// The pods.
#[derive(Debug, Default)]
pub struct PodIndex(HashMap<Box<str>, KnownPod>);

impl PodIndex {
    /// The pod of this UID.
    pub fn get(&self, uid: &str) -> Option<&KnownPod> {
        self.0.get(uid)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        let known = KnownPod { stage: pod.stage, has_stopped: pod.has_stopped, deletion: pod.deletion, node };
        self.pods.0.insert(pod.uid.as_str().into(), known);
    }
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
        self.pods.0.remove(pod.uid.as_str());
        self.suspect(id);
    }

    fn reset(&mut self, pods: Vec<SlimPod>) {
        self.pods.0.clear();
        for pod in pods {
            self.insert_pod(&pod);
        }
        self.suspect_all();
    }
}
