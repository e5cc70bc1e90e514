//! The pods of this node, reduced to what allocation asks of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use spiderpool_core::ipam::alive::{self, PodLife};
use spiderpool_core::ipam::owner::OwnerRef;

use super::Index;

/// The annotation by which the kubelet marks the mirror of a static pod: the hash of its manifest.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What allocation asks of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID as the runtime knows it. For a static pod that is the hash of its manifest, which its mirror on the
    /// API server names.
    pub uid: String,
    /// The UID of the object.
    pub object_uid: String,
    /// The node that it is bound to; empty before that.
    pub node: String,
    /// Whether it may still get and keep addresses.
    pub alive: bool,
    /// Whether it has ended for good; a pod in its grace period has not.
    pub finished: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its controller.
    pub owner: Option<OwnerRef>,
}

impl From<core::Pod> for Pod {
    fn from(pod: core::Pod) -> Self {
        let (alive, finished) = (alive::is_alive(Some(&life(&pod))), alive::is_finished(&life(&pod)));
        let meta = pod.metadata;
        let object_uid = meta.uid.unwrap_or_default();
        let mirrored = meta.annotations.as_ref().and_then(|annotations| annotations.get(MIRROR)).cloned();
        let mirrored = mirrored.filter(|hash| !hash.is_empty());
        let owners = meta.owner_references.unwrap_or_default();
        Self {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: mirrored.unwrap_or_else(|| object_uid.clone()),
            object_uid,
            node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
            alive,
            finished,
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            owner: owners.into_iter().find(|owner| owner.controller == Some(true)).map(|owner| OwnerRef {
                api_version: owner.api_version,
                kind: owner.kind,
                name: owner.name,
                uid: owner.uid,
            }),
        }
    }
}

fn life(pod: &core::Pod) -> PodLife<'_> {
    let status = pod.status.as_ref();
    PodLife {
        terminating: pod.metadata.deletion_timestamp.is_some(),
        phase: status.and_then(|status| status.phase.as_deref()).unwrap_or_default(),
        reason: status.and_then(|status| status.reason.as_deref()).unwrap_or_default(),
        restart_policy: pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or_default(),
    }
}

/// Pods by namespace and name.
#[derive(Debug, Default)]
pub struct PodIndex(HashMap<(String, String), Arc<Pod>>);

impl PodIndex {
    /// The pod of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.0.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

impl Index<core::Pod> for PodIndex {
    fn apply(&mut self, pod: core::Pod) {
        let pod = Pod::from(pod);
        self.0.insert((pod.namespace.clone(), pod.name.clone()), Arc::new(pod));
    }

    fn delete(&mut self, pod: &core::Pod) {
        let meta = &pod.metadata;
        let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        self.0.remove(&key);
    }

    fn reset(&mut self, pods: Vec<core::Pod>) {
        self.0.clear();
        for pod in pods {
            self.apply(pod);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> core::Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn life_is_read_from_all_its_places() {
        let with = |restart: &str, status: Value| {
            let spec = json!({"containers": [], "restartPolicy": restart});
            Pod::from(pod(json!({"metadata": {"name": "a"}, "spec": spec, "status": status}))).alive
        };
        assert!(with("Always", json!({"phase": "Pending"})));
        assert!(!with("OnFailure", json!({"phase": "Succeeded"})));
        assert!(!with("Always", json!({"phase": "Failed", "reason": "Evicted"})));
        let deleted = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let terminating = Pod::from(pod(deleted));
        assert!(!terminating.alive && !terminating.finished);
    }

    #[test]
    fn reset_forgets_what_the_list_lacks() {
        let mut index = PodIndex::default();
        let named =
            |name: &str, uid: &str| pod(json!({"metadata": {"namespace": "n", "name": name, "uid": uid}}));
        index.apply(named("a", "1"));
        index.apply(named("b", "2"));
        index.reset(vec![named("b", "3")]);
        assert_eq!(index.get("n", "a"), None);
        assert_eq!(index.get("n", "b").unwrap().uid, "3");
        index.delete(&named("b", "3"));
        assert_eq!(index.get("n", "b"), None);
    }

    #[test]
    fn a_static_pod_is_its_manifest() {
        let with = |annotations: Value| {
            Pod::from(pod(json!({"metadata": {"name": "a", "uid": "u", "annotations": annotations}})))
        };
        let mirror = with(json!({"kubernetes.io/config.mirror": "d41d8cd98f00b204e9800998ecf8427e"}));
        assert_eq!(
            (mirror.uid.as_str(), mirror.object_uid.as_str()),
            ("d41d8cd98f00b204e9800998ecf8427e", "u")
        );
        assert_eq!(with(json!({"kubernetes.io/config.mirror": ""})).uid, "u");
        assert_eq!(with(json!({})).uid, "u");
    }

    #[test]
    fn only_a_controller_is_the_owner() {
        let owner = |name: &str, controller: bool| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "u", "controller": controller});
        let pod = Pod::from(pod(
            json!({"metadata": {"name": "a", "ownerReferences": [owner("x", false), owner("y", true)]}}),
        ));
        assert_eq!(pod.owner.unwrap().name, "y");
    }
}
