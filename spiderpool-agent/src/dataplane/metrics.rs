//! Counters of the dataplane, over all NICs of the node.

use std::collections::HashMap;
use std::fmt::Debug;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use spiderpool_dataplane::Reason;

type ByReason = Family<[(&'static str, String); 1], Counter>;

/// What is exported.
#[derive(Debug, Clone, Default)]
pub struct DataplaneMetrics {
    packets: ByReason,
    bytes: ByReason,
    /// NICs that the programs serve.
    pub nics: Gauge,
    /// Entries of the map `nat`.
    pub nat_entries: Gauge,
    /// Translations that ran out of time.
    pub nat_expired: Counter,
    /// Entries of the map `link_flows`.
    pub link_flows: Gauge,
    /// Entries of the pod that has most of them.
    pub link_flows_most: Gauge,
    /// What others had removed from running pods or replaced, by what it is.
    pub restored: Family<[(&'static str, &'static str); 1], Counter>,
}

impl DataplaneMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("spiderpool_dataplane");
        registry.register("packets", "Packets by what the programs decided and why", metrics.packets.clone());
        registry.register("bytes", "Bytes by what the programs decided and why", metrics.bytes.clone());
        registry.register("nics", "NICs that the programs serve", metrics.nics.clone());
        registry.register(
            "nat_entries",
            "Entries of the map nat, two per translated flow",
            metrics.nat_entries.clone(),
        );
        registry.register(
            "nat_expired",
            "Translated flows that ran out of time",
            metrics.nat_expired.clone(),
        );
        registry.register(
            "link_flows",
            "Entries of the map link_flows: flows to pods by their node links",
            metrics.link_flows.clone(),
        );
        registry.register(
            "link_flows_of_fullest_pod",
            "Entries of link_flows that the pod with most of them has",
            metrics.link_flows_most.clone(),
        );
        registry.register(
            "restored",
            "Routes, neighbors, addresses, link states and filters of running pods that others had removed or replaced",
            metrics.restored.clone(),
        );
        metrics
    }
}

/// Turns the counters of NICs, which begin again with each NIC, into counters that only grow.
#[derive(Debug, Default)]
pub(super) struct CounterDeltas(HashMap<(u16, &'static str), (u64, u64)>);

impl CounterDeltas {
    /// Takes in what a NIC has counted so far.
    pub(super) fn add(&mut self, metrics: &DataplaneMetrics, nic: u16, stats: &[(Reason, u64, u64)]) {
        for (reason, packets, bytes) in stats {
            let name = reason.name();
            let last = self.0.entry((nic, name)).or_default();
            let label = [("reason", name.to_owned())];
            let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            let (more_packets, more_bytes) = (grown(*packets, last.0), grown(*bytes, last.1));
            if more_packets > 0 {
                metrics.packets.get_or_create(&label).inc_by(more_packets);
                metrics.bytes.get_or_create(&label).inc_by(more_bytes);
            }
            *last = (*packets, *bytes);
        }
    }

    /// The NIC's counters begin again.
    pub(super) fn forget(&mut self, nic: u16) {
        self.0.retain(|(id, _), _| *id != nic);
    }
}
