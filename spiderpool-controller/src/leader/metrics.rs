//! The controller's metrics.

mod gauges;

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use spiderpool_core::ipam::release::FreeReason;

pub(crate) use gauges::{Detail, PoolGauges, SubnetCounts, SubnetGauges};

/// Upper bounds of the lag, in seconds.
const BOUNDS: [f64; 7] = [0.05, 0.1, 0.3, 0.5, 1.0, 3.0, 10.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Time from a change to the write of a pool that shows it.
#[derive(Debug, Clone)]
pub(crate) struct Lag(Histogram);

impl Lag {
    /// Counts one more.
    pub(crate) fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// All of them. Names that upstream's dashboards use come first.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    addresses_freed: Counter,
    /// Failed attempts to reconcile a pod.
    pub(crate) pod_failures: Counter,
    /// Frees that met another writer.
    pub(crate) release_conflicts: Counter,
    /// Pools.
    pub(crate) pools: Gauge,
    /// Subnets.
    pub(crate) subnets: Gauge,
    /// The addresses of each pool.
    pub(crate) by_pool: PoolGauges,
    /// The addresses of each subnet.
    pub(crate) by_subnet: SubnetGauges,
    /// Addresses in use.
    pub(crate) addresses: Gauge,
    /// Known pods.
    pub(crate) pods: Gauge,
    /// 1 on the leader.
    pub(crate) leader: Gauge,
    by_reason: Family<Reason, Counter>,
    /// Endpoints written in place of an agent.
    pub(crate) endpoints_written: Counter,
    /// Objects of addresses in use that were missing and were written again.
    pub(crate) addresses_restored: Counter,
    /// Allocations of upstream's agents that became objects.
    pub(crate) addresses_imported: Counter,
    /// Addresses in use that another pod has been given.
    pub(crate) addresses_lost: Counter,
    /// Writes of a pool's status.
    pub(crate) pool_status_writes: Counter,
    /// Writes of a pool's bitmaps.
    pub(crate) pool_usage_writes: Counter,
    /// Failed attempts to reconcile a pool.
    pub(crate) pool_failures: Counter,
    /// From a change to the write that shows it.
    pub(crate) pool_lag: Lag,
    /// Changes of the coordinator's status.
    pub(crate) coordinator_writes: Counter,
}

impl Metrics {
    /// Registers all of them.
    pub(crate) fn register(registry: &mut Registry, detail: Detail) -> Self {
        let metrics = Self {
            release_conflicts: Counter::default(),
            subnets: Gauge::default(),
            by_pool: PoolGauges::register(registry, detail),
            by_subnet: SubnetGauges::register(registry, detail),
            addresses_freed: Counter::default(),
            pod_failures: Counter::default(),
            pools: Gauge::default(),
            addresses: Gauge::default(),
            pods: Gauge::default(),
            leader: Gauge::default(),
            by_reason: Family::default(),
            endpoints_written: Counter::default(),
            addresses_restored: Counter::default(),
            addresses_imported: Counter::default(),
            addresses_lost: Counter::default(),
            pool_status_writes: Counter::default(),
            pool_usage_writes: Counter::default(),
            pool_failures: Counter::default(),
            pool_lag: Lag(Histogram::new(BOUNDS)),
            coordinator_writes: Counter::default(),
        };
        for (name, help, counter) in [
            ("ip_gc_counts", "Addresses freed", &metrics.addresses_freed),
            ("ip_gc_failure_counts", "Attempts to free that failed", &metrics.pod_failures),
            (
                "ipam_release_update_ippool_conflict_counts",
                "Attempts to free that met another writer",
                &metrics.release_conflicts,
            ),
            (
                "controller_endpoints_written",
                "Endpoints that agents did not write",
                &metrics.endpoints_written,
            ),
            (
                "controller_addresses_restored",
                "SpiderIPAddresses of running pods that were missing and were written again",
                &metrics.addresses_restored,
            ),
            (
                "controller_addresses_imported",
                "Allocations of upstream's agents that became SpiderIPAddresses",
                &metrics.addresses_imported,
            ),
            (
                "controller_addresses_lost",
                "Addresses of running pods that another pod has been given",
                &metrics.addresses_lost,
            ),
            ("controller_pool_status_writes", "Writes of the status of pools", &metrics.pool_status_writes),
            ("controller_pool_usage_writes", "Writes of the bitmaps of pools", &metrics.pool_usage_writes),
            ("controller_pool_write_failures", "Writes of either that failed", &metrics.pool_failures),
            (
                "controller_coordinator_writes",
                "Changes of the coordinator's status",
                &metrics.coordinator_writes,
            ),
        ] {
            registry.register(format!("spiderpool_{name}"), help, counter.clone());
        }
        for (name, help, gauge) in [
            ("total_ippool_counts", "Pools", &metrics.pools),
            ("total_subnet_counts", "Subnets", &metrics.subnets),
            ("controller_addresses", "Addresses in use, as the leader knows them", &metrics.addresses),
            ("controller_pods", "Pods, as the leader knows them", &metrics.pods),
            ("controller_leader", "1 on the leader, 0 elsewhere", &metrics.leader),
        ] {
            registry.register(format!("spiderpool_{name}"), help, gauge.clone());
        }
        for reason in FreeReason::ALL {
            drop(metrics.by_reason.get_or_create(&Reason { reason: reason.as_str() }));
        }
        registry.register(
            "spiderpool_controller_freed",
            "Addresses freed, by reason",
            metrics.by_reason.clone(),
        );
        registry.register(
            "spiderpool_controller_view_lag_seconds",
            "Time from a change to the write that shows it",
            metrics.pool_lag.0.clone(),
        );
        metrics
    }

    /// Another replica leads: what only the leader knows is not kept up to date any more.
    pub(crate) fn forget_cluster(&self) {
        self.by_pool.clear();
        self.by_subnet.clear();
        self.addresses.set(0);
        self.pods.set(0);
    }

    /// An address was freed.
    pub(crate) fn freed(&self, cause: FreeReason) {
        self.addresses_freed.inc();
        self.by_reason.get_or_create(&Reason { reason: cause.as_str() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names_are_those_of_the_dashboards() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, Detail::Usual);
        metrics.freed(FreeReason::Gone);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "spiderpool_ip_gc_counts_total 1",
            "spiderpool_ip_gc_failure_counts_total 0",
            "spiderpool_ipam_release_update_ippool_conflict_counts_total 0",
            "spiderpool_total_ippool_counts 0",
            "spiderpool_total_subnet_counts 0",
            "spiderpool_controller_freed_total{reason=\"gone\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
