//! The reconciler of the SpiderCoordinator: its status says where the cluster's pods and Services are.

mod kubeadm;
mod plan;
mod problem;
mod reconcile;
mod source;
mod watches;

use std::sync::Arc;

use backon::Retryable as _;
use kube::runtime::events::{Recorder, Reporter};
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::work_queue::work_queue;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::metrics::Metrics;
use reconcile::CoordinatorReconciler;

/// Reconciles the coordinator `name` until shutdown. `pod` is the name of our own pod, for Events.
pub(super) async fn run(
    kube: Kubernetes,
    name: String,
    pod: String,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let find = || source::served(kube.clone());
    let find = find.retry(backoff::exponential()).notify(|error, pause| {
        warn!(%error, ?pause, "cannot find out whether ServiceCIDRs are served, trying again");
    });
    let Some(Ok(services)) = shutdown.run_until_cancelled(find).await else { return };
    let (queue, workers) = work_queue();
    let name: Arc<str> = name.into();
    queue.add(Arc::clone(&name));
    let watching = watches::run(kube.client(), services.as_ref(), &name, &queue);
    let reporter = Reporter { controller: "spiderpool".to_owned(), instance: Some(pod) };
    let recorder = Recorder::new(kube.client(), reporter);
    let reconciler = CoordinatorReconciler::new(kube.clone(), services.clone(), recorder, metrics);
    tokio::select! {
        () = workers.run(1, &reconciler, &shutdown) => {}
        () = watching => {}
    }
}
