//! The reconciler of pods: it frees the addresses of pods that are gone and writes endpoints that an agent did not
//! write. The node's own agent has a moment to do so first, and the API server is asked before anything is freed.

mod collector;
mod compare;
mod reconcile;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use spiderpool_core::ipam::alive::OverdueRules;

pub use collector::Collector;

use super::state::Policy;
use crate::config::Collection;

/// What is configured.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether the leader frees addresses. The agents free those of their nodes in any case.
    pub enabled: bool,
    /// On which nodes an overdue pod counts as finished.
    pub rules: OverdueRules,
    /// Added to every grace period.
    pub additional: Duration,
    /// How often everything is compared with the API server.
    pub interval: Duration,
}

impl Settings {
    fn policy(&self) -> Policy {
        Policy { now: Timestamp::now(), additional: self.additional, rules: self.rules }
    }
}

impl From<&Collection> for Settings {
    fn from(collection: &Collection) -> Self {
        Self {
            enabled: collection.enabled,
            rules: OverdueRules {
                on_ready_nodes: collection.terminating_on_ready_node,
                on_dead_nodes: collection.terminating_on_not_ready_node,
            },
            additional: collection.additional_grace_delay,
            interval: collection.interval,
        }
    }
}
