//! The pod CIDRs that nodes were given.

use std::collections::HashMap;

use ipnet::IpNet;

use super::slim::SlimNode;

/// The pod CIDRs of nodes by node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeCidrIndex {
    by_node: HashMap<Box<str>, Box<[IpNet]>>,
    has_listed: bool,
}

impl NodeCidrIndex {
    /// The CIDRs of all nodes, IPv4 first, neighbours merged: nodes are given one after the other. `None` before the nodes
    /// were listed.
    pub(crate) fn merged(&self) -> Option<Vec<IpNet>> {
        self.has_listed.then(|| IpNet::aggregate(&self.by_node.values().flatten().copied().collect()))
    }

    /// Adds or replaces a node; whether its CIDRs have changed.
    pub(super) fn insert(&mut self, node: &SlimNode) -> bool {
        if self.by_node.get(node.name.as_str()) == Some(&node.pod_cidrs) {
            return false;
        }
        let before = self.by_node.insert(node.name.as_str().into(), node.pod_cidrs.clone());
        before.is_some() || !node.pod_cidrs.is_empty()
    }

    /// Removes the node of this name; whether it had any.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.by_node.remove(name).is_some_and(|cidrs| !cidrs.is_empty())
    }

    /// Only these nodes exist.
    pub(super) fn reset(&mut self, nodes: &[SlimNode]) {
        self.by_node.clear();
        self.has_listed = true;
        for node in nodes {
            self.insert(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_api::node::NodeObject;

    use super::*;

    fn node(name: &str, cidrs: &[&str]) -> SlimNode {
        let spec = json!({"podCIDR": cidrs.first(), "podCIDRs": cidrs});
        let object = json!({"metadata": {"name": name}, "spec": spec, "status": {}});
        SlimNode::from(serde_json::from_value::<NodeObject>(object).unwrap())
    }

    /// The list of a large cluster stays short.
    #[test]
    fn neighbours_are_merged_and_only_changes_count() {
        let mut index = NodeCidrIndex::default();
        assert_eq!(index.merged(), None, "not listed");
        index.reset(&[node("a", &["10.42.0.0/24", "fd42::/64"])]);
        assert!(index.insert(&node("b", &["10.42.1.0/24", "fd42:0:0:1::/64"])));
        assert!(!index.insert(&node("b", &["10.42.1.0/24", "fd42:0:0:1::/64"])));
        assert!(!index.insert(&node("c", &[])), "it has none yet");
        let merged = |index: &NodeCidrIndex| {
            index.merged().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(merged(&index), ["10.42.0.0/23", "fd42::/63"]);
        assert!(index.insert(&node("c", &["10.42.9.0/24"])) && index.remove("b") && !index.remove("b"));
        assert_eq!(merged(&index), ["10.42.0.0/24", "10.42.9.0/24", "fd42::/64"]);
    }
}
