//! What is written of a pool, and how often: the first change at once, further ones at an interval, which for statuses is
//! that between the writes of all pools.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::Patch;
use kube::runtime::events::Recorder;
use serde_json::Value;
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::pools::AllocationOwner;
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::{Action, Reconciler, WorkQueue};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::claim::{self, Claim};
use super::events::PoolEvents;
use super::import::{Import, Importer, Obstacle};
use super::upstream_agents::ServiceAccount;
use super::usage_store::UsageStore;
use super::write_budget::WriteBudget;
use super::{finalizer, status};
use crate::leader::metrics::Metrics;
use crate::leader::state::{ClusterState, Occupancy};
use crate::patch_parameters;

/// Interval between two writes of a pool's bitmaps.
const USAGE_INTERVAL: Duration = Duration::from_millis(500);

/// What is written of a pool, each on its own: agents wait for bitmaps, and a status may be large.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum PoolKey {
    /// Its bitmaps.
    Usage(Arc<str>),
    /// Its status, `spec.ipVersion` if it is absent, and its finalizer and mark.
    Object(Arc<str>),
}

impl PoolKey {
    fn pool(&self) -> &str {
        match self {
            Self::Usage(pool) | Self::Object(pool) => pool,
        }
    }
}

/// Reconciles pools.
pub(super) struct PoolReconciler {
    kube: Kubernetes,
    state: Shared<ClusterState>,
    pools: Api<SpiderIPPool>,
    usage: UsageStore,
    metrics: Metrics,
    events: PoolEvents,
    importer: Importer,
    budget: Mutex<WriteBudget>,
}

impl PoolReconciler {
    pub(super) fn new(
        kube: Kubernetes,
        state: Shared<ClusterState>,
        usage: UsageStore,
        metrics: Metrics,
        recorder: Recorder,
        agents: ServiceAccount,
    ) -> Self {
        let events = PoolEvents::new(recorder);
        let importer = Importer::new(kube.clone(), metrics.clone(), agents);
        let budget = Mutex::new(WriteBudget::new(Instant::now()));
        Self { pools: Api::all(kube.client()), kube, state, usage, metrics, events, importer, budget }
    }

    /// Writes what is not right, but the status only when it is the pool's turn; how long that takes.
    async fn write_object(&self, pool: &str) -> Result<Option<Duration>, ApiFailure> {
        // While it waits for its turn, nothing is compared: there may be thousands of addresses, each of them changing.
        let waits = self.lock_budget().remaining(pool, Instant::now());
        if let Some(uid) = self.state.read(|state| outdated_mark(state, pool)) {
            // Its removal comes back by the watch.
            return claim::withdraw(&self.kube, pool, &uid).await.map(|()| None);
        }
        let (status, version, unused, unclaimed) = self.state.read(|state| {
            let Some(known) = state.pools.get(pool) else { return (None, None, None, None) };
            let is_unused = known.extra.is_finalizing
                && !state.addresses.is_in_use(pool)
                && known.owner() != AllocationOwner::Upstream;
            let unused = is_unused.then(|| known.uid.clone());
            let unclaimed = Claim::of(known).map(|_| known.uid.clone());
            let status = || status::plan(state, pool, known, Timestamp::now());
            let status = waits.is_none().then(status).flatten();
            (status, status::plan_version(known), unused, unclaimed)
        });
        if let Some(uid) = unclaimed
            && !claim::write(&self.kube, pool, &uid).await?
        {
            return Ok(None);
        }
        let turn = waits.or_else(|| self.take_turn(pool, status.is_some()));
        if let (Some(patch), None) = (status, turn) {
            let written = self.patch(pool, patch, Part::Status).await?;
            self.metrics.pool_status_writes.inc();
            self.events.report(&written).await;
        }
        if let Some(uid) = unused {
            finalizer::remove_when_unused(&self.kube, pool, &uid).await?;
        } else if let Some(patch) = version {
            // Last, because it fails while no controller answers for the webhook, this one included.
            self.patch(pool, patch, Part::Spec).await?;
        }
        let again = self.import(pool).await?;
        Ok(turn.into_iter().chain(again).min())
    }

    /// Takes the pool over if upstream's agents have addresses of it; when to look again, if it is not the pool that changes.
    async fn import(&self, pool: &str) -> Result<Option<Duration>, ApiFailure> {
        let uid = self.state.read(|state| {
            let known = state.pools.get(pool)?;
            (known.owner() == AllocationOwner::Upstream).then(|| known.uid.clone())
        });
        let Some(uid) = uid else { return Ok(None) };
        let imported = self.importer.import(pool, &uid).await;
        if let Some(obstacle) = imported.as_ref().err().and_then(Obstacle::of) {
            self.events.report_obstacle(pool, &uid, obstacle).await;
        }
        match imported? {
            Import::Unneeded => Ok(None),
            Import::Done(report) => {
                self.events.report_import(pool, &uid, &report).await;
                Ok(None)
            }
            Import::Waits { obstacle, again } => {
                if let Some(obstacle) = obstacle {
                    self.events.report_obstacle(pool, &uid, obstacle).await;
                }
                Ok(again)
            }
        }
    }

    /// In metrics, and as an Event when no address is left.
    async fn show_usage(&self, pool: &str) {
        let found =
            self.state.read(|state| Some((state.pools.get(pool)?.uid.clone(), Occupancy::of(state, pool)?)));
        let Some((uid, occupancy)) = found else {
            self.metrics.by_pool.forget(pool);
            return self.events.forget(pool);
        };
        self.metrics.by_pool.set(pool, &occupancy);
        self.events.report_usage(pool, &uid, &occupancy).await;
    }

    fn lock_budget(&self) -> MutexGuard<'_, WriteBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the pool has to wait before its status may be written.
    fn take_turn(&self, pool: &str, is_outdated: bool) -> Option<Duration> {
        let interval = status::interval(self.state.read(|state| state.addresses.count(pool)));
        let mut budget = self.lock_budget();
        if is_outdated {
            return budget.take(pool, interval, Instant::now()).err();
        }
        budget.cancel(pool);
        None
    }

    async fn patch(&self, pool: &str, patch: Value, part: Part) -> Result<SpiderIPPool, ApiFailure> {
        let (patch, parameters) = (Patch::Merge(patch), patch_parameters());
        let request = async {
            match part {
                Part::Spec => self.pools.patch(pool, &parameters, &patch).await,
                Part::Status => self.pools.patch_status(pool, &parameters, &patch).await,
            }
        };
        let written = self.kube.write(request).await?;
        self.state.write(|state| state.apply_written(written.clone()));
        Ok(written)
    }
}

impl Reconciler<PoolKey> for PoolReconciler {
    type Error = ApiFailure;

    async fn reconcile(&self, key: &PoolKey, since: Instant) -> Result<Action, ApiFailure> {
        let interval = self.min_interval(key);
        match key {
            PoolKey::Usage(pool) => {
                // First what agents wait for: an Event may take its time.
                self.usage.write(&self.state, pool).await?;
                self.show_usage(pool).await;
            }
            PoolKey::Object(pool) => {
                if let Some(turn) = self.write_object(pool).await? {
                    return Ok(Action::requeue(turn));
                }
            }
        }
        self.metrics.pool_lag.observe(since.elapsed());
        Ok(Action::await_change().with_min_interval(interval))
    }

    fn min_interval(&self, key: &PoolKey) -> Duration {
        match key {
            PoolKey::Usage(_) => USAGE_INTERVAL,
            // The budget of all pools limits it.
            PoolKey::Object(_) => Duration::ZERO,
        }
    }

    fn failed(&self, key: &PoolKey, error: &ApiFailure, pause: Duration) {
        self.metrics.pool_failures.inc();
        let pool = key.pool();
        if error.is_conflict() || error.is_not_found() {
            debug!(pool, %error, ?pause, "the pool has changed, reconciling again");
        } else {
            warn!(pool, %error, ?pause, "pool not written, trying again");
        }
    }
}

/// The UID of a pool that is marked as ours and has allocations of upstream's agents.
fn outdated_mark(state: &ClusterState, pool: &str) -> Option<String> {
    let known = state.pools.get(pool)?;
    (known.is_marked() && known.owner() == AllocationOwner::Upstream).then(|| known.uid.clone())
}

/// Which part of a pool is written.
#[derive(Debug, Clone, Copy)]
enum Part {
    Spec,
    Status,
}

/// Adds what is written of these pools to the queue.
pub(crate) fn enqueue(changed: impl IntoIterator<Item = Arc<str>>, queue: &WorkQueue<PoolKey>) {
    for pool in changed {
        queue.add(PoolKey::Usage(Arc::clone(&pool)));
        queue.add(PoolKey::Object(pool));
    }
}
