//! A pod, reduced to what allocation and release ask of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::Deserialize;
use serde::de::IgnoredAny;
use spiderpool_core::ipam::deleted_pods::{DEFAULT_GRACE, may_run_for};
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::pod_stage::{PodLife, PodStage};
use spiderpool_core::names::{NameError, NodeName, PodIdentity, PodName};

/// The annotation by which the kubelet marks the mirror of a static pod: the hash of its manifest.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Final phases: nothing of the pod is started again.
pub const STOPPED: [&str; 2] = ["Succeeded", "Failed"];

/// The pod's UID as the runtime knows it, by its object's metadata.
pub fn uid(meta: &ObjectMeta) -> &str {
    mirror_hash(meta).or(meta.uid.as_ref()).map(String::as_str).unwrap_or_default()
}

/// What controls an object of whatever kind.
pub fn controller(meta: &ObjectMeta) -> Option<OwnerRef> {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| OwnerRef {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    })
}

/// The hash of the manifest that a mirror is of.
fn mirror_hash(meta: &ObjectMeta) -> Option<&String> {
    let mirrored = meta.annotations.as_ref().and_then(|annotations| annotations.get(MIRROR));
    mirrored.filter(|hash| !hash.is_empty())
}

/// What an Event is about: the pod's object, whose UID is not that of a static pod.
pub fn reference(pod: &PodName, object_uid: &str) -> core::ObjectReference {
    core::ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace().to_owned()),
        name: Some(pod.name().to_owned()),
        uid: Some(object_uid.to_owned()),
        ..core::ObjectReference::default()
    }
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
    termination_grace_period_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    state: ContainerState,
    last_state: ContainerState,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<IgnoredAny>,
    terminated: Option<IgnoredAny>,
}

impl PodStatus {
    fn containers(&self) -> impl Iterator<Item = &ContainerStatus> {
        let Self { container_statuses, init_container_statuses, .. } = self;
        [container_statuses, init_container_statuses].into_iter().flatten().flatten()
    }

    fn container_states(&self) -> impl Iterator<Item = &ContainerState> {
        self.containers().map(|container| &container.state)
    }
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

impl PodObject {
    /// Where it stands in its life.
    pub fn stage(&self) -> PodStage {
        PodStage::of(&PodLife {
            terminating: self.metadata.deletion_timestamp.is_some(),
            phase: &self.status.phase,
            is_mirror: mirror_hash(&self.metadata).is_some(),
        })
    }

    /// Whether its phase says that all its containers have stopped.
    pub fn has_stopped(&self) -> bool {
        STOPPED.contains(&self.status.phase.as_str())
    }

    /// Whether its status shows a container that runs.
    pub fn has_running(&self) -> bool {
        self.status.container_states().any(|state| state.running.is_some())
    }

    /// Whether a container of it runs or has run.
    pub fn has_started(&self) -> bool {
        let has_run = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
        self.status.containers().any(|container| has_run(&container.state) || has_run(&container.last_state))
    }

    /// The grace period that it was deleted with, if it is terminating. When it ends is not said: that is a time by the API
    /// server's clock.
    pub fn deletion(&self) -> Option<Duration> {
        self.metadata.deletion_timestamp.as_ref()?;
        let grace = self.metadata.deletion_grace_period_seconds.unwrap_or_default();
        Some(Duration::from_secs(u64::try_from(grace).unwrap_or_default()))
    }

    /// The node that it is bound to; empty before that.
    pub fn node(&self) -> &str {
        &self.spec.node_name
    }

    /// How long its containers are given to stop: as its spec says, or longer by the wish of who deletes it.
    fn grace(&self) -> Duration {
        let seconds = |seconds: Option<i64>| seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let grace =
            seconds(self.spec.termination_grace_period_seconds).map_or(DEFAULT_GRACE, Duration::from_secs);
        let wished = seconds(self.metadata.deletion_grace_period_seconds);
        grace.max(wished.map_or(Duration::ZERO, Duration::from_secs))
    }

    /// How long its kubelet may take to stop it. Pod garbage collection sets a final phase alone; a kubelet says of each
    /// container that it has ended.
    pub fn stops_within(&self) -> Duration {
        let mut states = self.status.container_states().peekable();
        let has_ended = states.peek().is_some() && states.all(|state| state.terminated.is_some());
        may_run_for(if self.has_stopped() && has_ended { Duration::ZERO } else { self.grace() })
    }

    /// How long it may run on if the API server forgets it now; `None` if nothing of it can run.
    pub fn may_run_for(&self) -> Option<Duration> {
        (!self.has_stopped() && !self.spec.node_name.is_empty()).then(|| self.stops_within())
    }
}

/// What allocation asks of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Which pod it is. Of a static pod the UID is the hash of its manifest, which its mirror on the API server names.
    pub identity: PodIdentity,
    /// The UID of the object.
    pub object_uid: String,
    /// When the API server has made it, by its clock.
    pub created: Option<Timestamp>,
    /// The node that it is bound to.
    pub node: Option<NodeName>,
    /// Whether it may still get and keep addresses, or has ended.
    pub stage: PodStage,
    /// The grace period that it was deleted with, if it is terminating.
    pub deletion: Option<Duration>,
    /// Whether its phase says that all its containers have stopped.
    pub has_stopped: bool,
    /// Whether its status shows a container that runs.
    pub has_running: bool,
    /// Whether a container of it runs or has run.
    pub has_started: bool,
    /// Its grace period.
    pub grace: Duration,
    /// How long its kubelet may take to stop it.
    pub stops_within: Duration,
    /// How long it may run on if the API server forgets it now; `None` if nothing of it can run.
    pub may_run_for: Option<Duration>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its controller.
    pub owner: Option<OwnerRef>,
}

/// The API server has checked the names; that one is wrong all the same must not make the pod one that is not there.
impl TryFrom<PodObject> for Pod {
    type Error = NameError;

    fn try_from(pod: PodObject) -> Result<Self, NameError> {
        let (stage, deletion) = (pod.stage(), pod.deletion());
        let (has_stopped, may_run_for) = (pod.has_stopped(), pod.may_run_for());
        let (has_running, grace, stops_within) = (pod.has_running(), pod.grace(), pod.stops_within());
        let has_started = pod.has_started();
        let node = Some(pod.node()).filter(|node| !node.is_empty()).map(str::parse).transpose()?;
        let meta = pod.metadata;
        let uid = uid(&meta).parse()?;
        let owner = controller(&meta);
        let name = PodName::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default())?;
        Ok(Self {
            identity: PodIdentity { name, uid },
            object_uid: meta.uid.unwrap_or_default(),
            created: meta.creation_timestamp.map(|time| time.0),
            node,
            stage,
            deletion,
            has_stopped,
            has_running,
            has_started,
            grace,
            stops_within,
            may_run_for,
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            owner,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod `n/a` with UID `u`, but for what `value` says.
    #[expect(clippy::needless_pass_by_value, reason = "every caller makes it on the spot")]
    fn pod(value: Value) -> Pod {
        let mut object = json!({"metadata": {"namespace": "n", "name": "a", "uid": "u"}});
        for (member, inner) in value.as_object().unwrap() {
            match (inner.as_object(), object[member].as_object_mut()) {
                (Some(new), Some(known)) => known.extend(new.clone()),
                _ => object[member] = inner.clone(),
            }
        }
        Pod::try_from(serde_json::from_value::<PodObject>(object).unwrap()).unwrap()
    }

    #[test]
    fn life_is_read_from_all_its_places() {
        let with = |restart: &str, status: Value| {
            let spec = json!({"containers": [], "restartPolicy": restart});
            pod(json!({"spec": spec, "status": status})).stage
        };
        assert_eq!(with("Always", json!({"phase": "Pending"})), PodStage::Alive);
        for restart in ["Always", "OnFailure", "Never"] {
            assert_eq!(with(restart, json!({"phase": "Succeeded"})), PodStage::Finished, "{restart}");
            for reason in ["Evicted", "DeadlineExceeded", "Terminated", "Preempting", "NodeAffinity"] {
                let status = json!({"phase": "Failed", "reason": reason});
                assert_eq!(with(restart, status), PodStage::Finished, "{restart} {reason}");
            }
        }
        let deletion = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7});
        let terminating = pod(json!({ "metadata": deletion }));
        assert_eq!(terminating.stage, PodStage::Terminating);
        assert_eq!(terminating.deletion, Some(Duration::from_secs(7)));
        assert_eq!(pod(json!({})).deletion, None);
    }

    #[test]
    fn a_running_container_is_read_from_the_status() {
        let with = |status: Value| pod(json!({ "status": status })).has_running;
        let running = json!([{"name": "a", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]);
        let waiting = json!([{"name": "a", "state": {"waiting": {"reason": "ContainerCreating"}}}]);
        assert!(with(json!({"containerStatuses": running})));
        assert!(with(json!({"containerStatuses": waiting, "initContainerStatuses": running})));
        assert!(!with(json!({"containerStatuses": waiting})));
        assert!(!with(json!({"containerStatuses": null})) && !with(json!({})));
        let started = |status: Value| pod(json!({ "status": status })).has_started;
        let crashed = json!([{"name": "a", "state": {"waiting": {}}, "lastState": {"terminated": {}}}]);
        assert!(
            started(json!({"containerStatuses": running})) && started(json!({"containerStatuses": crashed}))
        );
        assert!(!started(json!({"containerStatuses": waiting})) && !started(json!({})));
    }

    #[test]
    fn a_kubelet_says_of_each_container_that_it_has_ended() {
        let within = |status: Value| pod(json!({ "status": status })).stops_within;
        let (grace, at_once) = (may_run_for(DEFAULT_GRACE), may_run_for(Duration::ZERO));
        let state = |state: &str| json!([{"name": "a", "state": {state: {}}}]);
        let ended = state("terminated");
        assert_eq!(within(json!({"phase": "Failed", "containerStatuses": ended})), at_once);
        assert_eq!(within(json!({"phase": "Failed"})), grace, "the phase alone is set by others, too");
        assert_eq!(within(json!({"phase": "Failed", "containerStatuses": state("running")})), grace);
        let init =
            json!({"phase": "Failed", "containerStatuses": state("waiting"), "initContainerStatuses": ended});
        assert_eq!(within(init), grace);
        assert_eq!(within(json!({"phase": "Running", "containerStatuses": ended})), grace, "it is restarted");
    }

    #[test]
    fn what_is_read_is_a_pod_to_the_api_server() {
        assert_eq!(PodObject::url_path(&(), Some("shop")), "/api/v1/namespaces/shop/pods");
        assert_eq!(PodObject::api_version(&()), "v1");
    }

    #[test]
    fn a_pod_that_the_api_server_forgets_may_run_on_unless_it_has_stopped() {
        let with =
            |spec: Value, phase: &str| pod(json!({"spec": spec, "status": {"phase": phase}})).may_run_for;
        let bound = json!({"nodeName": "n1", "terminationGracePeriodSeconds": 300});
        assert!(with(bound.clone(), "Running").unwrap() > Duration::from_mins(5));
        assert!(with(json!({"nodeName": "n1"}), "Pending").unwrap() > DEFAULT_GRACE);
        assert_eq!(with(bound, "Failed"), None, "its kubelet says so before it deletes it");
        assert_eq!(with(json!({}), "Pending"), None, "no kubelet has it");
    }

    #[test]
    fn a_static_pod_is_its_manifest() {
        let with = |annotations: Value| pod(json!({"metadata": {"annotations": annotations}}));
        let mirror = with(json!({"kubernetes.io/config.mirror": "d41d8cd98f00b204e9800998ecf8427e"}));
        assert_eq!(
            (mirror.identity.uid.as_str(), mirror.object_uid.as_str()),
            ("d41d8cd98f00b204e9800998ecf8427e", "u")
        );
        assert_eq!(with(json!({"kubernetes.io/config.mirror": ""})).identity.uid.as_str(), "u");
        assert_eq!(with(json!({})).identity.uid.as_str(), "u");
    }

    #[test]
    fn only_a_controller_is_the_owner() {
        let owner = |name: &str, controller: bool| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": "u", "controller": controller});
        let pod = pod(json!({"metadata": {"ownerReferences": [owner("x", false), owner("y", true)]}}));
        assert_eq!(pod.owner.unwrap().name, "y");
    }

    #[test]
    fn a_pod_without_a_name_is_an_error() {
        let object: PodObject = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        assert!(Pod::try_from(object).is_err());
    }
}
