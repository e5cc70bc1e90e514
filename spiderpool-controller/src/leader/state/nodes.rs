//! Which nodes answer.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use spiderpool_api::node::NodeReadiness;
use spiderpool_api::node_lease;
use spiderpool_core::ipam::release::NodeState;

use super::slim::SlimNode;

/// An agent has so long to write the Lease that says that its node is alive: longer than a Lease is valid.
const SETTLE_TIME: Duration = node_lease::DURATION.saturating_add(node_lease::RENEW_INTERVAL);

/// What is kept of a node.
#[derive(Debug, Clone, Copy)]
struct KnownNode {
    readiness: NodeReadiness,
    /// Since when it is so, by this process.
    since: Instant,
    /// Whether it was not so before.
    has_changed: bool,
}

/// Nodes by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeIndex(HashMap<Box<str>, KnownNode>);

impl NodeIndex {
    /// Whether the node answers; `None` if there is none of this name.
    pub(crate) fn readiness(&self, name: &str) -> Option<NodeReadiness> {
        self.0.get(name).map(|node| node.readiness)
    }

    /// What the node's readiness means for its pods; `None` if there is no such node.
    pub(crate) fn state(
        &self,
        name: &str,
        readiness: Option<NodeReadiness>,
        now: Instant,
    ) -> NodeState<Instant> {
        match readiness {
            Some(NodeReadiness::Ready) => NodeState::Ready,
            Some(NodeReadiness::NotReady) => {
                let known = self.0.get(name).filter(|node| node.readiness == NodeReadiness::NotReady);
                NodeState::NotReady { settled: known.map_or(now, |node| node.since) + SETTLE_TIME }
            }
            Some(NodeReadiness::OutOfService) => NodeState::OutOfService,
            None => NodeState::Deleted,
        }
    }

    /// When a node that is ready now became so, if it was seen not to be; `now` if this is not known yet.
    pub(crate) fn returned_at(&self, name: &str, now: Instant) -> Option<Instant> {
        let known = self.0.get(name)?;
        match known.readiness {
            NodeReadiness::Ready => known.has_changed.then_some(known.since),
            NodeReadiness::NotReady | NodeReadiness::OutOfService => Some(now),
        }
    }

    /// Adds or replaces a node; whether its readiness has changed.
    pub(super) fn insert(&mut self, node: &SlimNode) -> bool {
        let before = self.readiness(&node.name);
        if before == Some(node.readiness) {
            return false;
        }
        let known =
            KnownNode { readiness: node.readiness, since: Instant::now(), has_changed: before.is_some() };
        self.0.insert(node.name.as_str().into(), known);
        true
    }

    /// Removes the node of this name.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Only these nodes exist.
    pub(super) fn reset(&mut self, nodes: &[SlimNode]) {
        let listed: HashSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        self.0.retain(|name, _| listed.contains(&**name));
        for node in nodes {
            self.insert(node);
        }
    }
}
