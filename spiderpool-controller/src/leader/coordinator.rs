//! The reconciler of the SpiderCoordinator: its status says where the cluster's pods and Services are.

mod cidrs;
mod detect;
mod kinds;
mod outcome;
mod plan;
mod problem;
mod read;
mod reconcile;
mod sources;
mod watches;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::{Recorder, Reporter};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::{WorkQueue, Workers};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::state::ClusterState;
use crate::config::Coordinator;
use reconcile::CoordinatorReconciler;

/// Nodes come and go in crowds: their changes within this time cause one reconciliation.
const NODES_DEBOUNCE: Duration = Duration::from_millis(500);

/// What the reconciler works on.
pub(super) struct CoordinatorContext {
    pub(super) kube: Kubernetes,
    /// For the nodes' pod CIDRs.
    pub(super) state: Shared<ClusterState>,
    pub(super) metrics: Metrics,
    /// The name of our own pod, for Events.
    pub(super) pod: String,
}

/// Has the coordinator reconciled when the leader's watch of nodes has seen a change. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct CoordinatorTrigger {
    name: Arc<str>,
    queue: WorkQueue<Arc<str>>,
}

impl CoordinatorTrigger {
    pub(super) fn new(name: &str, queue: WorkQueue<Arc<str>>) -> Self {
        Self { name: name.into(), queue }
    }

    pub(super) fn changed(&self) {
        self.queue.add_after(Arc::clone(&self.name), NODES_DEBOUNCE);
    }
}

/// Reconciles the coordinator until shutdown.
pub(super) async fn run(
    context: CoordinatorContext,
    settings: Coordinator,
    trigger: CoordinatorTrigger,
    workers: Workers<Arc<str>>,
    shutdown: CancellationToken,
) {
    let CoordinatorContext { kube, state, metrics, pod } = context;
    let CoordinatorTrigger { name, queue } = trigger;
    let watched = kinds::watched(&name, &settings.cilium_config_map);
    let directory: Option<PathBuf> = settings.cni_config_dir;
    let reader = read::Reader::new(kube.clone(), state, settings.cilium_config_map, directory);
    let (sender, kind) = watch::channel(plan::effective(None));
    let reporter = Reporter { controller: "spiderpool".to_owned(), instance: Some(pod) };
    let recorder = Recorder::new(kube.client(), reporter);
    let reconciler = CoordinatorReconciler::new(kube.clone(), reader, sender, recorder, metrics);
    queue.add(Arc::clone(&name));
    tokio::select! {
        () = workers.run(1, &reconciler, &shutdown) => {}
        () = watches::run(&kube, &watched, &kind, &name, &queue) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use spiderpool_runtime::work_queue::{Action, Reconciler, work_queue};
    use tokio::time::Instant;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Reconciler<Arc<str>> for Count {
        type Error = Infallible;

        async fn reconcile(&self, _name: &Arc<str>, _since: Instant) -> Result<Action, Infallible> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(Action::await_change())
        }

        fn failed(&self, _name: &Arc<str>, error: &Infallible, _pause: Duration) {
            match *error {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_nodes_causes_few_reconciliations() {
        let (queue, workers) = work_queue();
        let trigger = CoordinatorTrigger::new("default", queue);
        let (count, shutdown) = (Count::default(), CancellationToken::new());
        let nodes = async {
            for _ in 0..1000 {
                trigger.changed();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(NODES_DEBOUNCE).await;
            shutdown.cancel();
        };
        tokio::join!(workers.run(1, &count, &shutdown), nodes);
        let runs = count.0.load(Ordering::Relaxed);
        assert!((2..=4).contains(&runs), "{runs}");
    }
}
