//! The reconciler of pools: their status, bitmaps of their addresses for agents that pick, and their finalizer. What it
//! writes are views: an allocation depends on the addresses themselves.

mod claim;
mod conditions;
mod events;
mod finalizer;
mod import;
mod reconcile;
mod status;
mod upstream_agents;
mod usage;
mod usage_store;
mod write_budget;

use backon::Retryable as _;
use kube::runtime::events::Recorder;
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::{WorkQueue, Workers};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(super) use events::reference;
pub(super) use reconcile::{PoolKey, enqueue};
pub(super) use upstream_agents::ServiceAccount;

use super::metrics::Metrics;
use super::state::ClusterState;
use reconcile::PoolReconciler;
use usage_store::UsageStore;

/// Pools that are written at the same time.
const WORKERS: usize = 4;

/// Reconciles pools until shutdown. The watches have listed.
pub(super) async fn run(
    kube: Kubernetes,
    state: Shared<ClusterState>,
    metrics: Metrics,
    recorder: Recorder,
    agents: ServiceAccount,
    (queue, workers): (WorkQueue<PoolKey>, Workers<PoolKey>),
    shutdown: CancellationToken,
) {
    let load = || UsageStore::load(kube.clone(), metrics.clone());
    let load = load.retry(backoff::exponential()).notify(|error, pause| {
        warn!(%error, ?pause, "bitmaps of pools not listed, trying again");
    });
    let Some(Ok(usage)) = shutdown.run_until_cancelled(load).await else { return };
    // Also of pools that are gone.
    enqueue(usage.stored().read(|stored| stored.pools().collect::<Vec<_>>()), &queue);
    let reconciler = PoolReconciler::new(kube, state, usage, metrics, recorder, agents);
    workers.run(WORKERS, &reconciler, &shutdown).await;
}
