//! The pods of this node.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spiderpool_api::pod::{Pod, PodObject};
use spiderpool_core::ipam::vanished::Vanished;

use super::Index;

/// Pods by namespace and name, and those that vanished while they ran.
#[derive(Debug, Default)]
pub struct PodIndex {
    pods: HashMap<(String, String), Arc<Pod>>,
    vanished: Vanished<Instant>,
}

impl PodIndex {
    /// The pod of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Until when a pod may run that the API server does not have any more.
    pub fn may_run_until(&self, namespace: &str, name: &str, uid: &str) -> Option<Instant> {
        let now = Instant::now();
        match self.get(namespace, name).filter(|pod| pod.uid == uid) {
            // The watch is behind.
            Some(pod) => now.checked_add(pod.may_run_for()?),
            None => self.vanished.until(uid, now),
        }
    }

    fn vanish(&mut self, pod: &Pod, may_run_for: Option<Duration>) {
        let now = Instant::now();
        self.vanished.insert(&pod.uid, may_run_for.and_then(|time| now.checked_add(time)), now);
    }
}

impl Index<PodObject> for PodIndex {
    fn apply(&mut self, pod: PodObject) {
        let pod = Pod::from(pod);
        self.vanished.remove(&pod.uid);
        let before = self.pods.insert((pod.namespace.clone(), pod.name.clone()), Arc::new(pod.clone()));
        if let Some(before) = before.filter(|before| before.uid != pod.uid) {
            self.vanish(&before, before.may_run_for());
        }
    }

    fn delete(&mut self, pod: &PodObject) {
        let pod = Pod::from(pod.clone());
        let before = self.pods.remove(&(pod.namespace.clone(), pod.name.clone()));
        // By force, a pod is deleted with a grace period of 0, and its kubelet goes by the one before.
        let before = before.filter(|before| before.uid == pod.uid).and_then(|before| before.may_run_for());
        self.vanish(&pod, pod.may_run_for().map(|time| time.max(before.unwrap_or_default())));
    }

    fn reset(&mut self, pods: Vec<PodObject>) {
        let before = mem::take(&mut self.pods);
        for pod in pods {
            self.apply(pod);
        }
        // Nobody has seen them go.
        for (name, pod) in before {
            if self.pods.get(&name).is_none_or(|now| now.uid != pod.uid) {
                self.vanish(&pod, pod.may_run_for());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reset_forgets_what_the_list_lacks() {
        let mut index = PodIndex::default();
        let named = |name: &str, uid: &str| -> PodObject {
            serde_json::from_value(json!({"metadata": {"namespace": "n", "name": name, "uid": uid}})).unwrap()
        };
        index.apply(named("a", "1"));
        index.apply(named("b", "2"));
        index.reset(vec![named("b", "3")]);
        assert_eq!(index.get("n", "a"), None);
        assert_eq!(index.get("n", "b").unwrap().uid, "3");
        index.delete(&named("b", "3"));
        assert_eq!(index.get("n", "b"), None);
    }

    #[test]
    fn a_pod_that_vanishes_while_it_runs_may_run_on() {
        let mut index = PodIndex::default();
        let named = |name: &str, uid: &str, phase: &str| -> PodObject {
            serde_json::from_value(json!({
                "metadata": {"namespace": "n", "name": name, "uid": uid},
                "spec": {"nodeName": "n1"}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        for name in ["seen", "missed", "replaced", "stopped"] {
            index.apply(named(name, name, "Running"));
        }
        index.delete(&named("seen", "seen", "Running"));
        index.delete(&named("stopped", "stopped", "Succeeded"));
        index.apply(named("replaced", "new", "Running"));
        index.reset(vec![named("replaced", "new", "Running")]);
        for (uid, expected) in
            [("seen", true), ("missed", true), ("replaced", true), ("stopped", false), ("unseen", false)]
        {
            assert_eq!(index.may_run_until("n", uid, uid).is_some(), expected, "{uid}");
        }
    }
}
