//! A pod, reduced to what allocation and release ask of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::Deserialize;
use spiderpool_core::ipam::alive::{PodLife, Stage};
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::vanished::{DEFAULT_GRACE, may_run_for};

/// The annotation by which the kubelet marks the mirror of a static pod: the hash of its manifest.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Phases of a pod of which nothing runs. Its kubelet may still start it again, if it is not terminating.
pub const STOPPED: [&str; 2] = ["Succeeded", "Failed"];

/// The pod's UID as the runtime knows it, by its object's metadata.
pub fn uid(meta: &ObjectMeta) -> &str {
    let mirrored = meta.annotations.as_ref().and_then(|annotations| annotations.get(MIRROR));
    let uid = mirrored.filter(|hash| !hash.is_empty()).or(meta.uid.as_ref());
    uid.map(String::as_str).unwrap_or_default()
}

/// A pod as it is read from the API server: the few members that count. The whole object takes tens of kilobytes of
/// memory, and megabytes of code to decode.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodObject {
    /// Its metadata.
    pub metadata: ObjectMeta,
    spec: PodSpec,
    status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
    restart_policy: String,
    termination_grace_period_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
    reason: String,
}

impl Resource for PodObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        core::Pod::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        core::Pod::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        core::Pod::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        core::Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

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
    /// Whether it may still get and keep addresses, or has ended.
    pub stage: Stage,
    /// When its grace period ends.
    pub deletion: Option<Timestamp>,
    /// Whether its phase says that all its containers have stopped.
    pub has_stopped: bool,
    /// How long its containers are given to stop: as its spec says, or longer by the wish of who deletes it.
    pub grace: Duration,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its controller.
    pub owner: Option<OwnerRef>,
}

impl Pod {
    /// Its UID and stage, as [`fate`](spiderpool_core::ipam::alive::fate) asks for them.
    pub fn standing(&self) -> (&str, Stage) {
        (&self.uid, self.stage)
    }

    /// How long it may run on if the API server has just forgotten it; `None` if nothing of it can run.
    pub fn may_run_for(&self) -> Option<Duration> {
        (!self.has_stopped && !self.node.is_empty()).then(|| may_run_for(self.grace))
    }
}

impl From<PodObject> for Pod {
    fn from(pod: PodObject) -> Self {
        let stage = Stage::of(&life(&pod));
        let has_stopped = STOPPED.contains(&life(&pod).phase);
        let meta = pod.metadata;
        let seconds = |seconds: Option<i64>| seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let grace =
            seconds(pod.spec.termination_grace_period_seconds).map_or(DEFAULT_GRACE, Duration::from_secs);
        let wished = seconds(meta.deletion_grace_period_seconds).map_or(Duration::ZERO, Duration::from_secs);
        let grace = grace.max(wished);
        let uid = uid(&meta).to_owned();
        let object_uid = meta.uid.unwrap_or_default();
        let owners = meta.owner_references.unwrap_or_default();
        Self {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid,
            object_uid,
            node: pod.spec.node_name,
            stage,
            deletion: meta.deletion_timestamp.map(|Time(at)| at),
            has_stopped,
            grace,
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

fn life(pod: &PodObject) -> PodLife<'_> {
    PodLife {
        terminating: pod.metadata.deletion_timestamp.is_some(),
        phase: &pod.status.phase,
        reason: &pod.status.reason,
        restart_policy: &pod.spec.restart_policy,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> PodObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn life_is_read_from_all_its_places() {
        let with = |restart: &str, status: Value| {
            let spec = json!({"containers": [], "restartPolicy": restart});
            Pod::from(pod(json!({"metadata": {"name": "a"}, "spec": spec, "status": status}))).stage
        };
        assert_eq!(with("Always", json!({"phase": "Pending"})), Stage::Alive);
        assert_eq!(with("OnFailure", json!({"phase": "Succeeded"})), Stage::Finished);
        assert_eq!(with("Always", json!({"phase": "Failed", "reason": "Evicted"})), Stage::Finished);
        let deleted = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let terminating = Pod::from(pod(deleted));
        assert_eq!(terminating.stage, Stage::Terminating);
        assert_eq!(terminating.deletion.unwrap().to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn what_is_read_is_a_pod_to_the_api_server() {
        assert_eq!(PodObject::url_path(&(), Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(PodObject::api_version(&()), "v1");
    }

    #[test]
    fn a_pod_that_vanishes_may_run_on_unless_it_has_stopped() {
        let with = |spec: Value, phase: &str| {
            Pod::from(pod(json!({"spec": spec, "status": {"phase": phase}}))).may_run_for()
        };
        let bound = json!({"nodeName": "n1", "terminationGracePeriodSeconds": 300});
        assert!(with(bound.clone(), "Running").unwrap() > Duration::from_mins(5));
        assert!(with(json!({"nodeName": "n1"}), "Pending").unwrap() > DEFAULT_GRACE);
        assert_eq!(with(bound, "Failed"), None, "its kubelet says so before it deletes it");
        assert_eq!(with(json!({}), "Pending"), None, "no kubelet has it");
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
