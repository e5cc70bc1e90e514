//! Objects reduced to the fields that the leader keeps, while they are decoded.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::jiff::Timestamp;
use kube::core::{ApiResource, Object};
use kube::{Api, Client};
use serde::Deserialize;
use spiderpool_api::crd::{AddressState, SpiderEndpoint, SpiderIPAddress};
use spiderpool_api::pod::{self, PodObject};
use spiderpool_core::ipam::address_name::parse_object_name;
use spiderpool_core::ipam::alive::Stage;

/// What is read of a node's spec: nothing.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct NodeSpec {}

/// What is read of a node's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    conditions: Vec<NodeCondition>,
}

/// One condition of a node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NodeCondition {
    r#type: String,
    status: String,
}

/// A node as it is decoded.
pub type WireNode = Object<NodeSpec, NodeStatus>;

/// All nodes.
pub fn nodes(client: Client) -> Api<WireNode> {
    Api::all_with(client, &ApiResource::erase::<k8s::Node>(&()))
}

/// A pod as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimPod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) node: String,
    pub(super) stage: Stage,
    pub(super) has_stopped: bool,
    pub(super) deletion: Option<Timestamp>,
    /// How long its containers may run on after its object is deleted.
    pub(super) may_run_for: Option<Duration>,
}

impl From<PodObject> for SlimPod {
    fn from(pod: PodObject) -> Self {
        Self {
            uid: pod::uid(&pod.metadata).to_owned(),
            node: pod.node().to_owned(),
            stage: pod.stage(),
            has_stopped: pod.has_stopped(),
            deletion: pod.deletion(),
            may_run_for: pod.may_run_for(),
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.metadata.name.unwrap_or_default(),
        }
    }
}

/// A node as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimNode {
    pub(super) name: String,
    pub(super) is_ready: bool,
}

impl SlimNode {
    /// Whether its condition `Ready` is true.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }
}

impl From<WireNode> for SlimNode {
    fn from(node: WireNode) -> Self {
        let conditions = node.status.unwrap_or_default().conditions;
        let ready = conditions.iter().any(|one| one.r#type == "Ready" && one.status == "True");
        Self { name: node.metadata.name.unwrap_or_default(), is_ready: ready }
    }
}

/// An address as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimAddress {
    /// By the object's name; `None` if that is invalid.
    pub(super) ip: Option<IpAddr>,
    pub(super) net: Option<IpNet>,
    pub(super) pool: String,
    pub(super) interface: String,
    pub(super) node: String,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) owner_kind: String,
    pub(super) owner_name: String,
    pub(super) is_bound: bool,
}

impl From<SpiderIPAddress> for SlimAddress {
    fn from(address: SpiderIPAddress) -> Self {
        let spec = address.spec;
        Self {
            ip: address.metadata.name.and_then(|name| parse_object_name(&name).ok()),
            net: spec.address.parse().ok(),
            pool: spec.pool,
            interface: spec.interface,
            node: spec.node.unwrap_or_default(),
            namespace: spec.pod_namespace,
            pod: spec.pod_name,
            uid: spec.pod_uid,
            owner_kind: spec.owner_kind,
            owner_name: spec.owner_name,
            is_bound: spec.state == AddressState::Bound,
        }
    }
}

/// An endpoint as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlimEndpoint {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// Whether the pod owns it. One that was made to outlive its pod has no such owner.
    pub(super) is_owned: bool,
    /// NICs and their addresses.
    pub(super) entries: Vec<(String, IpNet)>,
}

impl From<SpiderEndpoint> for SlimEndpoint {
    fn from(endpoint: SpiderEndpoint) -> Self {
        let meta = endpoint.metadata;
        let current = endpoint.status.map(|status| status.current).unwrap_or_default();
        let entries = current.ips.iter().flat_map(|ip| {
            let texts = [&ip.ipv4, &ip.ipv6].into_iter().flatten();
            texts.filter_map(|text| Some((ip.interface.clone(), text.parse().ok()?)))
        });
        Self {
            entries: entries.collect(),
            is_owned: meta.owner_references.iter().flatten().any(|owner| owner.kind == "Pod"),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: current.uid,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_read_from_all_its_places() {
        let wire: PodObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "n", "name": "p", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:30Z",
                "annotations": {"kubernetes.io/config.mirror": "d41d8cd9"},
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}], "restartPolicy": "Always"},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        }))
        .unwrap();
        let pod = SlimPod::from(wire);
        assert_eq!((pod.uid.as_str(), pod.node.as_str(), pod.stage), ("d41d8cd9", "n1", Stage::Terminating));
        assert!(!pod.has_stopped && pod.deletion.is_some());
    }

    #[test]
    fn a_node_is_ready_by_its_condition() {
        let node = |conditions: serde_json::Value| {
            let wire = json!({"metadata": {"name": "n"}, "spec": {}, "status": {"conditions": conditions}});
            SlimNode::from(serde_json::from_value::<WireNode>(wire).unwrap()).is_ready
        };
        assert!(node(
            json!([{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}])
        ));
        assert!(!node(json!([{"type": "Ready", "status": "Unknown"}])));
        assert!(!node(json!([])));
    }
}
