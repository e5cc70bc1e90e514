//! The pods of this node.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spiderpool_api::pod::{Pod, PodObject};
use spiderpool_core::ipam::deleted_pods::DeletedPods;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::names::{PodIdentity, PodName, PodUid};
use tracing::warn;

use super::Index;

/// Pods by namespace and name, and those that were deleted while they ran.
#[derive(Debug, Default)]
pub struct LocalPodIndex {
    pods: HashMap<PodName, Arc<Pod>>,
    /// Until when something of a finished pod may run.
    finish: HashMap<PodUid, Instant>,
    deleted: DeletedPods<Instant>,
}

impl LocalPodIndex {
    /// The pod of this name.
    pub fn get(&self, name: &PodName) -> Option<Arc<Pod>> {
        self.pods.get(name).cloned()
    }

    /// Until when a pod may run that the API server does not have any more. `grace` is its grace period by the objects of
    /// its addresses.
    pub fn may_run_until(&self, pod: &PodIdentity, grace: Option<Duration>) -> Option<Instant> {
        let now = Instant::now();
        match self.pods.get(&pod.name).filter(|known| known.identity == *pod) {
            // The watch is behind.
            Some(known) => {
                let may_run = known.may_run_for.and_then(|time| now.checked_add(time));
                may_run.max(self.finishes_at(&pod.uid))
            }
            None => self.deleted.may_run_until(&pod.uid, grace, now, |at, time| at.checked_add(time)),
        }
    }

    /// Until when something of a finished pod may run; `None` if it was not seen to finish.
    pub fn finishes_at(&self, uid: &PodUid) -> Option<Instant> {
        self.finish.get(uid).copied()
    }

    fn record_deletion(&mut self, pod: &Pod, may_run_for: Option<Duration>) {
        let now = Instant::now();
        let until = may_run_for.and_then(|time| now.checked_add(time));
        // Pod garbage collection sets a final phase and deletes the pod at once.
        let finish = self.finish.remove(&pod.identity.uid);
        self.deleted.insert(&pod.identity.uid, until.max(finish), now);
    }
}

/// A pod that makes no sense is not known here: who asks for it reads it from the API server and fails.
fn readable(pod: PodObject) -> Option<Pod> {
    Pod::try_from(pod).inspect_err(|error| warn!(%error, "pod is unreadable")).ok()
}

impl Index<PodObject> for LocalPodIndex {
    fn apply(&mut self, pod: PodObject) {
        let Some(pod) = readable(pod) else { return };
        let pod = Arc::new(pod);
        self.deleted.remove(&pod.identity.uid);
        if pod.stage == PodStage::Finished
            && let Some(end) = Instant::now().checked_add(pod.stops_within)
        {
            self.finish.entry(pod.identity.uid.clone()).or_insert(end);
        }
        let before = self.pods.insert(pod.identity.name.clone(), Arc::clone(&pod));
        if let Some(before) = before.filter(|before| before.identity.uid != pod.identity.uid) {
            self.record_deletion(&before, before.may_run_for);
        }
    }

    fn delete(&mut self, pod: &PodObject) {
        let Some(pod) = readable(pod.clone()) else { return };
        let before = self.pods.remove(&pod.identity.name);
        // By force, a pod is deleted with a grace period of 0, and its kubelet goes by the one before.
        let before = before
            .filter(|before| before.identity.uid == pod.identity.uid)
            .and_then(|before| before.may_run_for);
        self.record_deletion(&pod, pod.may_run_for.map(|time| time.max(before.unwrap_or_default())));
    }

    fn reset(&mut self, pods: Vec<PodObject>) {
        let before = mem::take(&mut self.pods);
        for pod in pods {
            self.apply(pod);
        }
        // Nobody has seen them go.
        for (name, pod) in before {
            if self.pods.get(&name).is_none_or(|now| now.identity.uid != pod.identity.uid) {
                self.record_deletion(&pod, pod.may_run_for);
            }
        }
        self.deleted.listed(Instant::now(), |at, time| at.checked_add(time));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(name: &str) -> PodName {
        PodName::new("n", name).unwrap()
    }

    #[test]
    fn reset_forgets_what_the_list_lacks() {
        let mut index = LocalPodIndex::default();
        let named = |name: &str, uid: &str| -> PodObject {
            serde_json::from_value(json!({"metadata": {"namespace": "n", "name": name, "uid": uid}})).unwrap()
        };
        index.apply(named("a", "1"));
        index.apply(named("b", "2"));
        index.reset(vec![named("b", "3")]);
        assert_eq!(index.get(&name("a")), None);
        assert_eq!(index.get(&name("b")).unwrap().identity.uid.as_str(), "3");
        index.delete(&named("b", "3"));
        assert_eq!(index.get(&name("b")), None);
    }

    #[test]
    fn a_finished_pod_is_known_to_end_once() {
        let mut index = LocalPodIndex::default();
        let phase = |phase: &str| -> PodObject {
            let metadata = json!({"namespace": "n", "name": "a", "uid": "u"});
            serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).unwrap()
        };
        let uid = "u".parse().unwrap();
        index.apply(phase("Running"));
        assert_eq!(index.finishes_at(&uid), None);
        index.apply(phase("Failed"));
        let end = index.finishes_at(&uid);
        assert!(end > Some(Instant::now()));
        index.reset(vec![phase("Failed")]);
        assert_eq!(index.finishes_at(&uid), end);
        let pod = PodIdentity { name: name("a"), uid: uid.clone() };
        assert_eq!(index.may_run_until(&pod, None), end, "the API server is ahead of the watch");
        index.delete(&phase("Failed"));
        assert_eq!(index.finishes_at(&uid), None);
        assert_eq!(index.may_run_until(&pod, None), end, "its object was deleted before that");
    }

    #[test]
    fn a_pod_that_is_deleted_while_it_runs_may_run_on() {
        let mut index = LocalPodIndex::default();
        let named = |name: &str, uid: &str, phase: &str| -> PodObject {
            serde_json::from_value(json!({
                "metadata": {"namespace": "n", "name": name, "uid": uid},
                "spec": {"nodeName": "n1"}, "status": {"phase": phase},
            }))
            .unwrap()
        };
        let unseen = PodIdentity { name: name("unseen"), uid: "unseen".parse().unwrap() };
        assert_eq!(index.may_run_until(&unseen, None), None, "nothing was listed");
        index.reset(vec![]);
        for name in ["seen", "missed", "replaced", "stopped"] {
            index.apply(named(name, name, "Running"));
        }
        index.delete(&named("seen", "seen", "Running"));
        index.delete(&named("stopped", "stopped", "Succeeded"));
        index.apply(named("replaced", "new", "Running"));
        index.reset(vec![named("replaced", "new", "Running")]);
        let grace = Some(Duration::from_mins(10));
        assert!(index.may_run_until(&unseen, grace) > Some(Instant::now() + Duration::from_secs(500)));
        for (uid, expected) in
            [("seen", true), ("missed", true), ("replaced", true), ("stopped", false), ("unseen", true)]
        {
            let pod = PodIdentity { name: name(uid), uid: uid.parse().unwrap() };
            assert_eq!(index.may_run_until(&pod, None).is_some(), expected, "{uid}");
        }
    }
}
