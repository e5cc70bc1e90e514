//! The agent's own Node.

use k8s_openapi::api::core::v1 as k8s;
use kube::core::{ApiResource, Object};
use kube::{Api, Client};
use serde::Deserialize;

use super::Index;

/// What is read of a node's spec: nothing.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct NodeSpec {}

/// What is read of a node's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
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
pub(crate) type WireNode = Object<NodeSpec, NodeStatus>;

/// All nodes.
pub(crate) fn nodes(client: Client) -> Api<WireNode> {
    Api::all_with(client, &ApiResource::erase::<k8s::Node>(&()))
}

/// A node as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnNode {
    pub(crate) uid: String,
    /// Whether its condition `Ready` is true: neither false, nor unknown, nor missing.
    pub(crate) is_ready: bool,
}

impl From<WireNode> for OwnNode {
    fn from(node: WireNode) -> Self {
        let conditions = node.status.unwrap_or_default().conditions;
        let is_ready = conditions.iter().any(|one| one.r#type == "Ready" && one.status == "True");
        Self { uid: node.metadata.uid.unwrap_or_default(), is_ready }
    }
}

/// The one Node that is watched, if it exists.
#[derive(Debug, Default)]
pub(crate) struct OwnNodeIndex(Option<OwnNode>);

impl OwnNodeIndex {
    /// The Node as the watch knows it.
    pub(crate) fn get(&self) -> Option<OwnNode> {
        self.0.clone()
    }
}

impl Index<OwnNode> for OwnNodeIndex {
    fn apply(&mut self, node: OwnNode) {
        self.0 = Some(node);
    }

    fn delete(&mut self, node: &OwnNode) {
        self.0.take_if(|known| known.uid == node.uid);
    }

    fn reset(&mut self, nodes: Vec<OwnNode>) {
        self.0 = nodes.into_iter().next();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_a_true_condition_is_ready() {
        let is_ready = |status: Value| {
            let object = json!({"metadata": {"name": "n", "uid": "u"}, "spec": {}, "status": status});
            OwnNode::from(serde_json::from_value::<WireNode>(object).unwrap()).is_ready
        };
        let ready = |status: &str| json!({"conditions": [{"type": "DiskPressure", "status": "True"}, {"type": "Ready", "status": status}]});
        assert!(is_ready(ready("True")));
        assert!(!is_ready(ready("False")) && !is_ready(ready("Unknown")));
        assert!(!is_ready(json!({"conditions": []})) && !is_ready(json!({})) && !is_ready(Value::Null));
    }

    #[test]
    fn a_late_deletion_leaves_the_node_of_the_same_name() {
        let node = |uid: &str| OwnNode { uid: uid.to_owned(), is_ready: true };
        let mut index = OwnNodeIndex::default();
        index.reset(vec![node("old")]);
        index.apply(node("new"));
        index.delete(&node("old"));
        assert_eq!(index.get(), Some(node("new")));
        index.delete(&node("new"));
        assert_eq!(index.get(), None);
    }
}
