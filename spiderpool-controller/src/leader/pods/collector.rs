//! Decides when a pod is looked at.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::jiff::Timestamp;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::reconcile::{PodReconciler, ReconcileError};
use super::{Settings, compare};
use crate::leader::metrics::Metrics;
use crate::leader::schedule::{Schedule, wait};
use crate::leader::state::{ClusterState, FreeReason, PodAction, PodId};

/// The node's agent has this long to free what belongs to a pod that is gone.
const GONE: Duration = Duration::from_secs(2);
/// The same for one that has finished: its sandbox follows later.
const FINISHED: Duration = Duration::from_secs(5);
/// The node's agent has this long to write an endpoint.
const ENDPOINT: Duration = Duration::from_secs(2);
/// Pods that are looked at at the same time.
const WORKERS: usize = 8;
/// Pause before a pod is looked at again of which something failed, doubled each time up to the limit.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The collector.
pub struct Collector {
    reconciler: PodReconciler,
    waiting: Schedule<PodId>,
    failures: HashMap<PodId, u32>,
    busy: HashSet<PodId>,
}

/// When a verdict is acted upon; `None` if there is nothing to do.
fn due(verdict: PodAction, now: Timestamp) -> Option<Duration> {
    match verdict {
        PodAction::None => None,
        PodAction::Free(FreeReason::Gone) => Some(GONE),
        PodAction::Free(FreeReason::Finished) => Some(FINISHED),
        PodAction::Free(FreeReason::Overdue) => Some(Duration::ZERO),
        PodAction::WriteEndpoint => Some(ENDPOINT),
        PodAction::RecheckAt(at) => Some(Duration::try_from(at.duration_since(now)).unwrap_or_default()),
    }
}

impl Collector {
    /// By this connection.
    pub fn new(kube: Kubernetes, state: Shared<ClusterState>, settings: Settings, metrics: Metrics) -> Self {
        Self {
            reconciler: PodReconciler { kube, state, settings, metrics },
            waiting: Schedule::default(),
            failures: HashMap::new(),
            busy: HashSet::new(),
        }
    }

    /// Works until shutdown; `changed` tells of changes. Wants watches that have listed.
    pub async fn run(mut self, changed: Arc<Notify>, shutdown: CancellationToken) {
        let comparing = tokio::spawn(compare::run(self.reconciler.clone(), shutdown.clone()));
        let mut running = FuturesUnordered::new();
        while !shutdown.is_cancelled() {
            for id in self.reconciler.state.write(ClusterState::take_pods) {
                self.look(id, Duration::ZERO);
            }
            while running.len() < WORKERS {
                let Some(id) = self.waiting.take(Instant::now()) else { break };
                if !self.busy.insert(id.clone()) {
                    self.waiting.put(id, Instant::now() + RETRY);
                    continue;
                }
                let reconciler = self.reconciler.clone();
                running.push(async move {
                    let outcome = reconciler.reconcile(&id).await;
                    (id, outcome)
                });
            }
            let next = self.waiting.next().filter(|_| running.len() < WORKERS);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = changed.notified() => {}
                () = wait(next) => {}
                Some((id, outcome)) = running.next() => self.done(id, outcome),
            }
        }
        // What has begun is finished.
        while running.next().await.is_some() {}
        if let Err(error) = comparing.await {
            warn!(%error, "the comparison has failed");
        }
    }

    /// Has the pod looked at when its verdict is due.
    fn look(&mut self, id: PodId, at_least: Duration) {
        let policy = self.reconciler.settings.policy();
        let verdict = self.reconciler.state.read(|state| state.evaluate(&id, policy));
        if let Some(pause) = due(verdict, policy.now) {
            self.waiting.put(id, Instant::now() + pause.max(at_least));
        }
    }

    fn done(&mut self, id: PodId, outcome: Result<(), ReconcileError>) {
        self.busy.remove(&id);
        let Err(error) = outcome else {
            self.failures.remove(&id);
            // A time that had not come, or what came meanwhile.
            if let PodAction::RecheckAt(_) = self.verdict(&id) {
                self.look(id, RETRY);
            }
            return;
        };
        let failures = self.failures.entry(id.clone()).or_default();
        *failures += 1;
        let pause = (RETRY * 2_u32.saturating_pow(*failures - 1)).min(LONGEST_RETRY);
        if matches!(error, ReconcileError::Changed { .. }) {
            info!(%error, "looking again");
        } else {
            self.reconciler.metrics.failures.inc();
            warn!(%error, "not done yet, trying again");
        }
        self.waiting.put(id, Instant::now() + pause);
    }

    fn verdict(&self, id: &PodId) -> PodAction {
        self.reconciler.state.read(|state| state.evaluate(id, self.reconciler.settings.policy()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_deleted_pod_held_is_freed_within_five_seconds() {
        let now = Timestamp::now();
        assert!(due(PodAction::Free(FreeReason::Gone), now).unwrap() <= Duration::from_secs(3));
        assert_eq!(due(PodAction::None, now), None);
        let later = now + k8s_openapi::jiff::SignedDuration::from_secs(7);
        assert_eq!(due(PodAction::RecheckAt(later), now), Some(Duration::from_secs(7)));
        assert_eq!(due(PodAction::RecheckAt(now), later), Some(Duration::ZERO));
    }
}
