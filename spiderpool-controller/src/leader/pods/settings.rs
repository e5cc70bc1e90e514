//! What is configured of freeing addresses.

use std::time::{Duration, Instant, SystemTime};

use spiderpool_core::ipam::KeptWorkloads;
use spiderpool_core::ipam::release::ReleasePolicy;

use crate::config::GarbageCollection;
use crate::leader::state::Policy;

/// What is configured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GcSettings {
    /// Whether the leader frees addresses. The agents free those of their nodes in any case.
    pub(super) enabled: bool,
    /// Which overdue pods count as ended.
    pub(super) release: ReleasePolicy,
    /// Added to every grace period.
    pub(super) additional: Duration,
    /// Which workloads' pods leave their addresses to the next one.
    pub(super) kept: KeptWorkloads,
    /// How often everything is compared with the API server.
    pub(super) interval: Duration,
}

impl GcSettings {
    pub(super) fn policy(&self) -> Policy {
        Policy {
            now: Instant::now(),
            clock: SystemTime::now(),
            additional: self.additional,
            release: self.release,
            kept: self.kept,
        }
    }

    /// As configured by the environment; `kept` is of the configuration file.
    pub(crate) fn new(configured: &GarbageCollection, kept: KeptWorkloads) -> Self {
        Self {
            enabled: configured.enabled,
            release: ReleasePolicy {
                overdue_on_ready_nodes: configured.terminating_on_ready_node,
                overdue_on_not_ready_nodes: configured.terminating_on_not_ready_node,
            },
            additional: configured.additional_grace_delay,
            kept,
            interval: configured.interval,
        }
    }
}
