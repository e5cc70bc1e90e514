//! Counts and durations of allocation and release, under the names that the dashboards know.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use spiderpool_core::ipam::FailureReason;
use spiderpool_runtime::metrics::Durations;

/// What is exported.
#[derive(Debug, Clone)]
pub struct IpamMetrics {
    allocations: Counter,
    allocation_failures: Counter,
    internal: Counter,
    no_available_pool: Counter,
    retries_exhausted: Counter,
    used_out: Counter,
    /// Addresses that somebody else had taken first.
    pub collisions: Counter,
    /// Addresses that somebody else was seen using.
    pub quarantined: Counter,
    /// Time of an allocation.
    pub allocation_time: Durations,
    /// Time that a request waited for others of its pod.
    pub allocation_wait: Durations,
    releases: Counter,
    release_failures: Counter,
    release_internal: Counter,
    /// Time of a release.
    pub release_time: Durations,
    /// Time that a release waited for others of its pod.
    pub release_wait: Durations,
}

impl IpamMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(format!("spiderpool_ipam_{name}"), help, counter.clone());
            counter
        };
        let allocations = counter("allocation_counts", "Requests to allocate");
        let allocation_failures = counter("allocation_failure_counts", "Requests to allocate that failed");
        let internal = counter("allocation_err_internal_counts", "Allocations that failed for other reasons");
        let no_available_pool =
            counter("allocation_err_no_available_pool_counts", "Allocations that found no pool");
        let retries_exhausted =
            counter("allocation_err_retries_exhausted_counts", "Allocations whose time was over");
        let used_out = counter("allocation_err_ip_used_out_counts", "Allocations that found no free address");
        let collisions = counter(
            "allocation_update_ippool_conflict_counts",
            "Addresses that somebody else had taken first",
        );
        let quarantined =
            counter("address_conflict_counts", "Addresses that somebody else used on the wire, quarantined");
        let releases = counter("release_counts", "Requests to release");
        let release_failures = counter("release_failure_counts", "Requests to release that failed");
        let release_internal = counter("release_err_internal_counts", "Releases that failed");
        // Nothing here can count in these; dashboards and alerts ask for them.
        counter("release_update_ippool_conflict_counts", "Releases that met another writer");
        counter("release_err_retries_exhausted_counts", "Releases whose time was over");
        registry.register(
            "spiderpool_debug_auto_pool_waited_for_available_counts",
            "Allocations that waited for an automatic pool",
            Counter::<u64>::default(),
        );
        let mut durations = |operation: &str, suffix: &str, help: &str| {
            Durations::register(registry, &format!("spiderpool_ipam_{operation}"), suffix, help)
        };
        Self {
            allocation_time: durations("allocation", "duration_seconds", "Time of an allocation"),
            allocation_wait: durations("allocation", "limit_duration_seconds", "Time an allocation waited"),
            release_time: durations("release", "duration_seconds", "Time of a release"),
            release_wait: durations("release", "limit_duration_seconds", "Time a release waited"),
            allocations,
            allocation_failures,
            internal,
            no_available_pool,
            retries_exhausted,
            used_out,
            collisions,
            quarantined,
            releases,
            release_failures,
            release_internal,
        }
    }

    /// A request to allocate has come.
    pub fn allocation_begins(&self) {
        self.allocations.inc();
    }

    /// It failed.
    pub fn allocation_failed(&self, reason: FailureReason) {
        self.allocation_failures.inc();
        let counter = match reason {
            FailureReason::NoAvailablePool | FailureReason::PoolMissing => &self.no_available_pool,
            FailureReason::RetriesExhausted => &self.retries_exhausted,
            FailureReason::AddressesUsedOut => &self.used_out,
            FailureReason::ApiServer | FailureReason::Internal => &self.internal,
            // Not a failure of ours: what was asked for cannot be had.
            FailureReason::WrongInput
            | FailureReason::NotSupported
            | FailureReason::AutoPoolDisabled
            | FailureReason::EarlierPod
            | FailureReason::AddressConflict
            | FailureReason::DeadPod => return,
        };
        counter.inc();
    }

    /// A request to release has come.
    pub fn release_begins(&self) {
        self.releases.inc();
    }

    /// It failed.
    pub fn release_failed(&self) {
        self.release_failures.inc();
        self.release_internal.inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn every_counter_of_the_dashboards_is_there_from_the_start() {
        let mut registry = Registry::default();
        IpamMetrics::register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let allocation =
            ["", "failure_", "update_ippool_conflict_", "err_internal_", "err_no_available_pool_"];
        let more = ["err_retries_exhausted_", "err_ip_used_out_"];
        let release = ["", "failure_", "update_ippool_conflict_", "err_internal_", "err_retries_exhausted_"];
        let names = allocation.iter().chain(&more).map(|part| format!("ipam_allocation_{part}counts"));
        let names = names.chain(release.iter().map(|part| format!("ipam_release_{part}counts")));
        for name in names.chain(["debug_auto_pool_waited_for_available_counts".to_owned()]) {
            let line = format!("spiderpool_{name}_total 0");
            assert!(text.lines().any(|found| found == line), "{line} is missing");
        }
    }
}
