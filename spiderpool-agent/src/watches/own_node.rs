//! The agent's own Node.

use std::sync::Arc;

use spiderpool_api::node::{NodeObject, NodeReadiness};
use spiderpool_core::ipam::Labels;

use super::Index;

/// A node as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnNode {
    pub(crate) uid: String,
    /// Whether its condition `Ready` is true: neither false, nor unknown, nor missing.
    pub(crate) is_ready: bool,
    /// Its labels.
    pub(crate) labels: Arc<Labels>,
}

impl From<NodeObject> for OwnNode {
    fn from(node: NodeObject) -> Self {
        let is_ready = NodeReadiness::from(&node) == NodeReadiness::Ready;
        let labels = Arc::new(node.metadata.labels.unwrap_or_default());
        Self { uid: node.metadata.uid.unwrap_or_default(), is_ready, labels }
    }
}

/// The one Node that is watched, if it exists.
#[derive(Debug, Default)]
pub struct OwnNodeIndex(Option<OwnNode>);

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
    use super::*;

    #[test]
    fn a_late_deletion_leaves_the_node_of_the_same_name() {
        let labels = Arc::new(Labels::from([("zone".to_owned(), "a".to_owned())]));
        let node = |uid: &str| OwnNode { uid: uid.to_owned(), is_ready: true, labels: Arc::clone(&labels) };
        let mut index = OwnNodeIndex::default();
        index.reset(vec![node("old")]);
        index.apply(node("new"));
        index.delete(&node("old"));
        assert_eq!(index.get(), Some(node("new")));
        index.delete(&node("new"));
        assert_eq!(index.get(), None);
    }
}
