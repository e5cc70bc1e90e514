//! Which nodes are ready.

use std::collections::HashMap;

use spiderpool_core::names::PodIdentity;
use spiderpool_runtime::watch::Index;

use super::ClusterState;
use super::slim::SlimNode;

/// Nodes by name, and whether they are ready.
#[derive(Debug, Default)]
pub struct NodeIndex(HashMap<Box<str>, bool>);

impl NodeIndex {
    /// Whether the node is there and ready.
    pub fn is_ready(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or_default()
    }
}

impl ClusterState {
    /// Marks the pods with addresses on this node.
    fn mark_node_changed(&mut self, name: &str) {
        let is_bound_to =
            |pod: &&PodIdentity| self.addresses.node(pod).is_some_and(|node| node.as_str() == name);
        let of_node = self.addresses.owners().filter(is_bound_to);
        self.changes.pods.extend(of_node.cloned());
    }
}

impl Index<SlimNode> for ClusterState {
    fn apply(&mut self, node: SlimNode) {
        let before = self.nodes.0.insert(node.name.as_str().into(), node.is_ready);
        if before != Some(node.is_ready) {
            self.mark_node_changed(&node.name);
        }
    }

    fn delete(&mut self, node: &SlimNode) {
        self.nodes.0.remove(node.name.as_str());
        self.mark_node_changed(&node.name);
    }

    fn reset(&mut self, nodes: Vec<SlimNode>) {
        self.nodes.0 = nodes.into_iter().map(|node| (node.name.into(), node.is_ready)).collect();
        self.mark_all_changed();
    }
}
