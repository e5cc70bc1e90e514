//! A Node, reduced to what agents and the controller's leader read of it while it is decoded: it may have hundreds of images.

use k8s_openapi::api::core::v1 as k8s;
use kube::core::{ApiResource, Object};
use kube::{Api, Client};
use serde::Deserialize;

/// On a node of which somebody has made sure that nothing runs there (`v1.TaintNodeOutOfService`).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is read of a node's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    taints: Vec<Taint>,
    /// The first pod CIDR, also of objects that have no list.
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

impl NodeSpec {
    /// The CIDRs that the node's pods have addresses of, where nodes are given some.
    pub fn pod_cidrs(&self) -> impl Iterator<Item = &str> {
        let first = self.pod_cidr.iter().filter(|first| !self.pod_cidrs.contains(first));
        first.chain(&self.pod_cidrs).map(String::as_str)
    }
}

/// One taint of a node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Taint {
    key: String,
}

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
pub type NodeObject = Object<NodeSpec, NodeStatus>;

/// All nodes.
pub fn nodes(client: Client) -> Api<NodeObject> {
    Api::all_with(client, &ApiResource::erase::<k8s::Node>(&()))
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeReadiness {
    /// Its condition `Ready` is true.
    Ready,
    /// It is false, unknown or missing.
    NotReady,
    /// The same, and the node has the taint that says that nothing runs there.
    OutOfService,
}

impl From<&NodeObject> for NodeReadiness {
    fn from(node: &NodeObject) -> Self {
        let conditions = node.status.iter().flat_map(|status| &status.conditions);
        if conditions.into_iter().any(|one| one.r#type == "Ready" && one.status == "True") {
            Self::Ready
        } else if node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) {
            Self::OutOfService
        } else {
            Self::NotReady
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_node_is_ready_by_its_condition_and_out_of_service_by_its_taint() {
        let readiness = |taint: &str, status: Value| {
            let spec = json!({"taints": [{"key": taint, "effect": "NoExecute"}]});
            let object = json!({"metadata": {"name": "n"}, "spec": spec, "status": status});
            NodeReadiness::from(&serde_json::from_value::<NodeObject>(object).unwrap())
        };
        let ready = |status: &str| json!({"conditions": [{"type": "DiskPressure", "status": "True"}, {"type": "Ready", "status": status}]});
        assert_eq!(readiness("example.com/t", ready("True")), NodeReadiness::Ready);
        for status in [ready("False"), ready("Unknown"), json!({"conditions": []}), json!({}), Value::Null] {
            assert_eq!(readiness("example.com/t", status.clone()), NodeReadiness::NotReady, "{status}");
            assert_eq!(readiness(OUT_OF_SERVICE, status.clone()), NodeReadiness::OutOfService, "{status}");
        }
        assert_eq!(readiness(OUT_OF_SERVICE, ready("True")), NodeReadiness::Ready, "its kubelet is at work");
    }
}
