//! The reconciler of pods: it frees the addresses of pods that are gone and writes endpoints that an agent did not
//! write. The node's own agent has time to do so first, and the API server is asked before anything is freed.

mod actuator;
mod endpoints;
mod error;
mod freed;
mod hand_over;
mod kept;
mod reconcile;
mod restore;
mod resync;
mod settings;

use std::sync::Arc;

use spiderpool_core::names::PodIdentity;
use spiderpool_runtime::work_queue::Workers;
use tokio_util::sync::CancellationToken;

pub(super) use reconcile::PodReconciler;
pub(super) use settings::GcSettings;

/// Pods that are reconciled at the same time.
const WORKERS: usize = 8;

/// Reconciles pods until shutdown, and resyncs at an interval. The watches have listed.
pub(super) async fn run(
    reconciler: Arc<PodReconciler>,
    workers: Workers<PodIdentity>,
    shutdown: CancellationToken,
) {
    tokio::join!(
        workers.run(WORKERS, &*reconciler, &shutdown),
        resync::run(reconciler.actuator(), &shutdown),
        reconciler.actuator().report_freed(&shutdown)
    );
}
