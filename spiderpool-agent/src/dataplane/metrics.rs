//! Counters of the dataplane, over all NICs of the node.

use std::collections::HashMap;
use std::fmt::Debug;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use spiderpool_dataplane::{FlowsExpired, Reason, Sizes, TableUsage};

/// What is restored, by `kind`.
const RESTORED: [&str; 5] = ["route", "neighbor", "address", "link", "filter"];
/// The maps that the agent alone writes.
const TABLES: [&str; 3] = ["cluster_cidrs", "addresses", "node_devices"];
/// The maps of flows.
const FLOWS: [&str; 3] = ["nat", "arrivals", "link_flows"];

type ByReason = Family<[(&'static str, String); 1], Counter>;

/// What is exported.
#[derive(Debug, Clone, Default)]
pub struct DataplaneMetrics {
    packets: ByReason,
    bytes: ByReason,
    /// NICs that the programs serve.
    pub nics: Gauge,
    /// What the maps hold.
    pub maps: MapMetrics,
    /// 1 while new pods get dataplane policy because the programs cannot be loaded.
    pub fallback: Gauge,
    /// What others had removed from running pods or replaced, by what it is.
    pub restored: Family<[(&'static str, &'static str); 1], Counter>,
}

impl DataplaneMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        // All that can be counted is there from the start.
        for reason in Reason::ALL {
            let label = [("reason", reason.name().to_owned())];
            drop((metrics.packets.get_or_create(&label), metrics.bytes.get_or_create(&label)));
        }
        for kind in RESTORED {
            drop(metrics.restored.get_or_create(&[("kind", kind)]));
        }
        let registry = registry.sub_registry_with_prefix("spiderpool_dataplane");
        registry.register("packets", "Packets by what the programs decided and why", metrics.packets.clone());
        registry.register("bytes", "Bytes by what the programs decided and why", metrics.bytes.clone());
        registry.register("nics", "NICs that the programs serve", metrics.nics.clone());
        metrics.maps.register(registry);
        registry.register(
            "fallback",
            "1 while new pods get dataplane policy in place of ebpf, because the node cannot load the programs",
            metrics.fallback.clone(),
        );
        registry.register(
            "restored",
            "Routes, neighbors, addresses, link states and filters of running pods that others had removed or replaced",
            metrics.restored.clone(),
        );
        metrics
    }
}

/// Labelled by the map's name.
type ByMap<M> = Family<[(&'static str, &'static str); 1], M>;

/// Fill levels of the maps, and by pod those of the maps of flows: nat, arrivals, link_flows.
#[derive(Debug, Clone, Default)]
pub struct MapMetrics {
    entries: ByMap<Gauge>,
    fullest: ByMap<Gauge>,
    capacity: ByMap<Gauge>,
    share: ByMap<Gauge>,
    expired: ByMap<Counter>,
}

impl MapMetrics {
    fn register(&self, registry: &mut Registry) {
        // Zero until the programs are loaded.
        for map in FLOWS.iter().chain(&TABLES) {
            drop((self.entries.get_or_create(&[("map", map)]), self.capacity.get_or_create(&[("map", map)])));
        }
        for map in FLOWS {
            drop((self.fullest.get_or_create(&[("map", map)]), self.share.get_or_create(&[("map", map)])));
            drop(self.expired.get_or_create(&[("map", map)]));
        }
        registry.register("map_entries", "Entries of a map", self.entries.clone());
        registry.register(
            "map_entries_of_fullest_pod",
            "Entries that the pod with most of them has",
            self.fullest.clone(),
        );
        registry.register("map_capacity", "Entries that the map has room for", self.capacity.clone());
        registry.register("map_share", "Entries that one pod may have", self.share.clone());
        registry.register("map_expired", "Entries that ran out of time", self.expired.clone());
    }

    /// How large the maps are.
    pub(super) fn set_sizes(&self, sizes: &Sizes) {
        let share = sizes.per_pod;
        for (map, capacity, share) in [
            ("nat", sizes.nat, share.nat),
            ("arrivals", sizes.arrivals, share.arrivals),
            ("link_flows", sizes.link_flows, share.link_flows),
        ] {
            self.capacity.get_or_create(&[("map", map)]).set(capacity.into());
            self.share.get_or_create(&[("map", map)]).set(share.into());
        }
    }

    /// How full the maps are that the agent alone writes.
    pub(super) fn set_tables(&self, tables: &[TableUsage]) {
        for table in tables {
            self.entries.get_or_create(&[("map", table.map)]).set(gauge(table.entries));
            self.capacity.get_or_create(&[("map", table.map)]).set(table.capacity.into());
        }
    }

    /// What a sweep has found.
    pub(super) fn set_flows(&self, found: &FlowsExpired) {
        for (map, found) in
            [("nat", &found.nat), ("arrivals", &found.arrivals), ("link_flows", &found.link_flows)]
        {
            self.entries.get_or_create(&[("map", map)]).set(gauge(found.left));
            self.fullest.get_or_create(&[("map", map)]).set(gauge(found.most));
            self.expired.get_or_create(&[("map", map)]).inc_by(found.removed as u64);
        }
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Turns the counters of NICs, which begin again with each NIC, into counters that only grow.
#[derive(Debug, Default)]
pub(super) struct CounterDeltas(HashMap<u16, Vec<(u64, u64)>>);

impl CounterDeltas {
    /// Takes in what a NIC has counted so far, of all reasons in the same order each time.
    pub(super) fn add(&mut self, metrics: &DataplaneMetrics, nic: u16, stats: &[(Reason, u64, u64)]) {
        let known = self.0.entry(nic).or_default();
        known.resize(stats.len(), (0, 0));
        for ((reason, packets, bytes), last) in stats.iter().zip(known) {
            let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            let (more_packets, more_bytes) = (grown(*packets, last.0), grown(*bytes, last.1));
            if more_packets > 0 {
                let label = [("reason", reason.name().to_owned())];
                metrics.packets.get_or_create(&label).inc_by(more_packets);
                metrics.bytes.get_or_create(&label).inc_by(more_bytes);
            }
            *last = (*packets, *bytes);
        }
    }

    /// The NIC's counters begin again.
    pub(super) fn forget(&mut self, nic: u16) {
        self.0.remove(&nic);
    }
}
