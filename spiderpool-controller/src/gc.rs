//! Frees what belongs to pods that are gone, and writes the endpoints that a dead agent did not write. It hears of a
//! pod's end by the watches, waits a moment for the node's own agent, and asks the API server before it acts.

mod act;
mod collector;
mod compare;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use spiderpool_core::ipam::alive::OverdueRules;

pub use collector::Collector;

use crate::world::Clock;

/// What is configured.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether anything is freed here. The agents free what is on their nodes in any case.
    pub enabled: bool,
    /// Whether overdue pods are finished.
    pub rules: OverdueRules,
    /// Added to every grace period.
    pub additional: Duration,
    /// How often everything is compared with live reads.
    pub interval: Duration,
}

impl Settings {
    fn clock(&self) -> Clock {
        Clock { now: Timestamp::now(), additional: self.additional, rules: self.rules }
    }
}
