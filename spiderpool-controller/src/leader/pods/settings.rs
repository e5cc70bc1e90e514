//! What is configured of freeing addresses.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use spiderpool_core::ipam::alive::OverdueRules;

use crate::config::Collection;
use crate::leader::state::Policy;

/// What is configured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Whether the leader frees addresses. The agents free those of their nodes in any case.
    pub(super) enabled: bool,
    /// On which nodes an overdue pod counts as finished.
    pub(super) rules: OverdueRules,
    /// Added to every grace period.
    pub(super) additional: Duration,
    /// How often everything is compared with the API server.
    pub(super) interval: Duration,
}

impl Settings {
    pub(super) fn policy(&self) -> Policy {
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
