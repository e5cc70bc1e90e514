//! Counts and durations of allocation and release, under the names that the dashboards know.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use spiderpool_core::ipam::FailureReason;
use spiderpool_core::ipam::release::FreeReason;
use spiderpool_runtime::metrics::Durations;

/// Upper bounds, in seconds, of the age of what was known of a pool. It is read again only after a collision.
const AGES: [f64; 8] = [0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 14_400.0, 86_400.0];

/// What comes of a pick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PickOutcome {
    /// The address is ours.
    Taken,
    /// Somebody else had it.
    Collided,
    /// The API server has not said whose it is.
    Failed,
}

impl PickOutcome {
    const ALL: [Self; 3] = [Self::Taken, Self::Collided, Self::Failed];

    fn label(self) -> [(&'static str, &'static str); 1] {
        let outcome = match self {
            Self::Taken => "taken",
            Self::Collided => "collided",
            Self::Failed => "failed",
        };
        [("outcome", outcome)]
    }
}

/// How addresses are picked.
#[derive(Debug, Clone)]
pub(super) struct PickMetrics {
    picks: Family<[(&'static str, &'static str); 1], Counter>,
    view_age: Histogram,
    /// Addresses that somebody else had taken first.
    pub(super) collisions: Counter,
}

impl PickMetrics {
    fn register(registry: &mut Registry, collisions: Counter) -> Self {
        let metrics = Self { picks: Family::default(), view_age: Histogram::new(AGES), collisions };
        for outcome in PickOutcome::ALL {
            drop(metrics.picks.get_or_create(&outcome.label()));
        }
        registry.register(
            "spiderpool_ipam_picks",
            "Addresses that seemed free and were tried, by what came of it",
            metrics.picks.clone(),
        );
        registry.register(
            "spiderpool_ipam_pick_view_age_seconds",
            "How old that was what the agent knew of the pool when it picked",
            metrics.view_age.clone(),
        );
        metrics
    }

    /// What came of a pick.
    pub(super) fn picked(&self, outcome: PickOutcome) {
        self.picks.get_or_create(&outcome.label()).inc();
    }

    /// A pick is made by what was known so long ago.
    pub(super) fn viewed(&self, age: Duration) {
        self.view_age.observe(age.as_secs_f64());
    }
}

/// What is exported.
#[derive(Debug, Clone)]
pub struct IpamMetrics {
    allocations: Counter,
    allocation_failures: Counter,
    internal: Counter,
    no_available_pool: Counter,
    retries_exhausted: Counter,
    used_out: Counter,
    /// How addresses are picked.
    pub(super) picks: PickMetrics,
    swept: Family<[(&'static str, &'static str); 1], Counter>,
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
        let picks = PickMetrics::register(registry, collisions);
        let swept = Family::<[(&'static str, &'static str); 1], Counter>::default();
        for reason in FreeReason::ALL {
            drop(swept.get_or_create(&[("reason", reason.as_str())]));
        }
        registry.register(
            "spiderpool_ipam_swept",
            "Addresses that were freed although no DEL has freed them, by reason",
            swept.clone(),
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
            picks,
            swept,
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

    /// So many addresses were freed for which no DEL came, or one that failed.
    pub(super) fn swept(&self, reason: FreeReason, addresses: usize) {
        self.swept.get_or_create(&[("reason", reason.as_str())]).inc_by(addresses as u64);
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
