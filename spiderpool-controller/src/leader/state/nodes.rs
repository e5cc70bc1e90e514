//! Which nodes are ready.

use std::collections::HashMap;

use super::slim::SlimNode;

/// Nodes by name, and whether they are ready.
#[derive(Debug, Default)]
pub(crate) struct NodeIndex(HashMap<Box<str>, bool>);

impl NodeIndex {
    /// Whether the node is ready; `None` if there is none of this name.
    pub(crate) fn is_ready(&self, name: &str) -> Option<bool> {
        self.0.get(name).copied()
    }

    /// Adds or replaces a node; whether its readiness has changed.
    pub(super) fn insert(&mut self, node: &SlimNode) -> bool {
        self.0.insert(node.name.as_str().into(), node.is_ready) != Some(node.is_ready)
    }

    /// Removes the node of this name.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Only these nodes exist.
    pub(super) fn reset(&mut self, nodes: Vec<SlimNode>) {
        self.0 = nodes.into_iter().map(|node| (node.name.into(), node.is_ready)).collect();
    }
}
