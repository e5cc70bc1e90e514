//! The reconciler of SpiderMultusConfigs: of each, a NetworkAttachmentDefinition is made and kept as it should be.
//!
//! What the object holds is decided in `spiderpool_core::multus`. Deletion is the API server's garbage collector's: the
//! SpiderMultusConfig owns what is made of it.

mod attachment;
mod events;
mod networks;
mod object_key;
mod plan;
mod problem;
mod reconcile;
mod watches;

use kube::runtime::events::{Recorder, Reporter};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::work_queue;
use tokio_util::sync::CancellationToken;

use networks::Networks;
use reconcile::MultusReconciler;

/// Networks that are reconciled at a time.
const WORKERS: usize = 4;

/// Reconciles until shutdown. `pod` is the name of our own pod, for Events.
pub(super) async fn run(kube: Kubernetes, pod: String, shutdown: CancellationToken) {
    let networks = Shared::<Networks>::default();
    let (queue, workers) = work_queue();
    let reporter = Reporter { controller: "spiderpool".to_owned(), instance: Some(pod) };
    let recorder = Recorder::new(kube.client(), reporter);
    let reconciler = MultusReconciler::new(kube.clone(), networks.clone(), recorder);
    tokio::join!(
        workers.run(WORKERS, &reconciler, &shutdown),
        watches::run(&kube, &networks, &queue, &shutdown)
    );
}
