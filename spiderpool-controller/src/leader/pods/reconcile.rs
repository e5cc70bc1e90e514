//! When a pod is reconciled: what the watches report waits until the node's own agent has had time to act.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Api;
use kube::runtime::events::Recorder;
use spiderpool_core::ipam::release::FreeReason;
use spiderpool_core::names::PodIdentity;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::{Action, Reconciler, WorkQueue};
use tracing::{info, warn};

use super::GcSettings;
use super::actuator::Actuator;
use super::error::ReconcileError;
use super::freed::FreedAddresses;
use crate::leader::metrics::Metrics;
use crate::leader::state::{ClusterState, PodAction};

/// The node's agent has this long to free the addresses of a pod that is gone.
const GONE_DELAY: Duration = Duration::from_secs(2);
/// The same for a pod that has finished, whose sandbox is removed later.
const FINISHED_DELAY: Duration = Duration::from_secs(5);
/// The node's agent has this long to write an endpoint. On a node with many new pods it writes the addresses first; nothing is lost
/// while it is missing.
const ENDPOINT_DELAY: Duration = Duration::from_secs(15);
/// The same to remove the finalizer of one that is being deleted.
const FINALIZER_DELAY: Duration = Duration::from_secs(2);
/// The same for an endpoint that names an address which the pod has no more. Longer than the agent's queue needs, and
/// short, because meanwhile another pod may get the address.
const RESTORE_DELAY: Duration = Duration::from_secs(3);
/// How often it is looked whether a virtual machine has moved whose old pod has ended.
const MOVE_RECHECK: Duration = Duration::from_secs(1);
/// After so long it is looked less often: the machine may never be said to have moved, and its pod run on.
const MOVE_IS_SLOW: Duration = Duration::from_mins(1);
/// How often it is looked then.
const SLOW_MOVE_RECHECK: Duration = Duration::from_secs(30);
/// A pod is not reconciled again sooner than this without a change.
const MIN_RECHECK: Duration = Duration::from_millis(500);

/// Reconciles pods that hold addresses or have an endpoint.
pub(crate) struct PodReconciler {
    actuator: Actuator,
    /// Since when it is looked whether virtual machines have moved, by the pods that they move from.
    moving: Mutex<HashMap<PodIdentity, Instant>>,
}

impl PodReconciler {
    /// It reads `state` and acts by `kube`. The agents' Leases are in `namespace`.
    pub(crate) fn new(
        kube: Kubernetes,
        namespace: &str,
        state: Shared<ClusterState>,
        settings: GcSettings,
        metrics: Metrics,
        recorder: Recorder,
    ) -> Self {
        let leases = Api::namespaced(kube.client(), namespace);
        let freed = FreedAddresses::default();
        let actuator = Actuator { kube, leases, state, settings, metrics, recorder, freed };
        Self { actuator, moving: Mutex::default() }
    }

    pub(super) fn actuator(&self) -> &Actuator {
        &self.actuator
    }

    /// Adds those of the changed pods to the queue that something is to be done about, for when it is due.
    pub(crate) fn enqueue(
        &self,
        changed: impl IntoIterator<Item = PodIdentity>,
        queue: &WorkQueue<PodIdentity>,
    ) {
        for id in changed {
            let (action, now) = self.actuator.evaluate(&id);
            if let Some(delay) = delay(action, now) {
                queue.add_after(id, delay);
            }
        }
    }

    /// When it is looked again whether the virtual machine of a pod has moved, if that is waited for.
    fn move_recheck(&self, id: &PodIdentity, action: PodAction, now: Instant) -> Option<Duration> {
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        if action != PodAction::HandOver {
            moving.remove(id);
            return None;
        }
        let since = *moving.entry(id.clone()).or_insert(now);
        Some(move_pause(now.saturating_duration_since(since)))
    }
}

/// How long it is not looked whether a virtual machine has moved after it was looked for so long.
fn move_pause(waited: Duration) -> Duration {
    if waited < MOVE_IS_SLOW { MOVE_RECHECK } else { SLOW_MOVE_RECHECK }
}

/// After what time an action is due; `None` if there is nothing to do.
fn delay(action: PodAction, now: Instant) -> Option<Duration> {
    match action {
        PodAction::None => None,
        PodAction::Free(FreeReason::Gone) | PodAction::FreeKept => Some(GONE_DELAY),
        PodAction::Free(FreeReason::Finished | FreeReason::TornDown) | PodAction::Keep => {
            Some(FINISHED_DELAY)
        }
        PodAction::Free(
            FreeReason::Overdue | FreeReason::Unplugged | FreeReason::Unclaimed | FreeReason::QuarantineOver,
        )
        | PodAction::FreeQuarantined
        | PodAction::HandOver => Some(Duration::ZERO),
        PodAction::FinalizeEndpoint => Some(FINALIZER_DELAY),
        PodAction::WriteEndpoint => Some(ENDPOINT_DELAY),
        PodAction::RestoreAddresses => Some(RESTORE_DELAY),
        PodAction::RecheckAt(at) => Some(at.saturating_duration_since(now)),
    }
}

impl Reconciler<PodIdentity> for PodReconciler {
    type Error = ReconcileError;

    async fn reconcile(
        &self,
        id: &PodIdentity,
        _since: tokio::time::Instant,
    ) -> Result<Action, ReconcileError> {
        self.actuator.act(id).await?;
        let (action, now) = self.actuator.evaluate(id);
        let move_recheck = self.move_recheck(id, action, now);
        Ok(match action {
            PodAction::RecheckAt(_) => {
                Action::requeue(delay(action, now).unwrap_or_default().max(MIN_RECHECK))
            }
            // KubeVirt has not said yet that the machine has moved, which is no change of what is watched.
            _ => move_recheck.map_or_else(Action::await_change, Action::requeue),
        })
    }

    fn failed(&self, id: &PodIdentity, error: &ReconcileError, pause: Duration) {
        if error.is_conflict() {
            self.actuator.metrics.release_conflicts.inc();
            info!(pod = %id, reason = error.reason(), %error, ?pause, "the object has changed, reconciling again");
        } else {
            self.actuator.metrics.pod_failures.inc();
            warn!(pod = %id, reason = error.reason(), %error, ?pause, "pod not reconciled, trying again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_deleted_pod_are_freed_within_five_seconds() {
        let now = Instant::now();
        assert!(delay(PodAction::Free(FreeReason::Gone), now).unwrap() <= Duration::from_secs(3));
        assert_eq!(delay(PodAction::None, now), None);
        let later = now + Duration::from_secs(7);
        assert_eq!(delay(PodAction::RecheckAt(later), now), Some(Duration::from_secs(7)));
        assert_eq!(delay(PodAction::RecheckAt(now), later), Some(Duration::ZERO));
    }

    #[test]
    fn a_machine_that_does_not_move_for_long_is_looked_at_less_often() {
        assert_eq!(move_pause(Duration::ZERO), MOVE_RECHECK);
        assert_eq!(move_pause(Duration::from_secs(59)), MOVE_RECHECK);
        assert_eq!(move_pause(Duration::from_hours(1)), SLOW_MOVE_RECHECK);
    }
}
