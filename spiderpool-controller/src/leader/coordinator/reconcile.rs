//! Writes the status and an Event of what is wrong, and removes our finalizer from a coordinator that is being deleted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::Patch;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource as _};
use serde_json::json;
use spiderpool_api::crd::{FINALIZER, PodCidrType, SpiderCoordinator, SpiderCoordinatorStatus};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes, publish_event};
use spiderpool_runtime::work_queue::{Action, Reconciler};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::plan::{Before, StatusPlan, effective, plan};
use super::read::Reader;
use crate::leader::metrics::Metrics;
use crate::patch_parameters;

/// Interval of reconciliations without an event: some of what the status depends on is not watched.
const RESYNC: Duration = Duration::from_mins(1);
/// Pause after a read that has failed in part.
const UNREAD: Duration = Duration::from_secs(10);
/// Pause while the leader's watch of nodes has not listed yet.
const NOT_LISTED: Duration = Duration::from_millis(200);

/// Reconciles coordinators.
pub(super) struct CoordinatorReconciler {
    kube: Kubernetes,
    coordinators: Api<SpiderCoordinator>,
    reader: Reader,
    /// The type that was met last, for the watches.
    kind: watch::Sender<PodCidrType>,
    recorder: Recorder,
    metrics: Metrics,
    /// When a status was written last.
    written: Mutex<Option<Instant>>,
}

impl CoordinatorReconciler {
    pub(super) fn new(
        kube: Kubernetes,
        reader: Reader,
        kind: watch::Sender<PodCidrType>,
        recorder: Recorder,
        metrics: Metrics,
    ) -> Self {
        let written = Mutex::default();
        Self { coordinators: Api::all(kube.client()), kube, reader, kind, recorder, metrics, written }
    }

    /// Returns when to do it again.
    async fn reconcile_status(&self, name: &str) -> Result<Duration, ApiFailure> {
        let Some(coordinator) = self.kube.read(self.coordinators.get_opt(name)).await? else {
            debug!(coordinator = name, "SpiderCoordinator does not exist");
            return Ok(RESYNC);
        };
        let meta = &coordinator.metadata;
        if meta.deletion_timestamp.is_some() {
            // There is nothing to clean up.
            let parameters = patch_parameters();
            self.kube.remove_finalizer(&self.coordinators, meta, FINALIZER, &parameters).await?;
            return Ok(RESYNC);
        }
        let kind = effective(coordinator.spec.pod_cidr_type);
        // Before the read: what changes after it is then seen by a watch.
        self.kind.send_if_modified(|known| std::mem::replace(known, kind) != kind);
        let Some(sources) = Box::pin(self.reader.read(kind)).await? else { return Ok(NOT_LISTED) };
        let desired = plan(kind, &sources, &Before::from(&coordinator));
        let pause = if desired.is_unread() { UNREAD } else { RESYNC };
        if coordinator.status.as_ref() == Some(&desired.status) {
            return Ok(pause);
        }
        let since = self.written().map(|written| written.elapsed());
        if desired.is_unread() && says_the_same(coordinator.status.as_ref(), &desired.status) {
            // The error's text may be another each time, and the watch brings our own write: without a pause this would
            // go round at the speed of the reads.
            if let Some(left) = since.and_then(|since| UNREAD.checked_sub(since)) {
                return Ok(left);
            }
        }
        self.write(&coordinator, &desired.status).await?;
        *self.written() = Some(Instant::now());
        self.metrics.coordinator_writes.inc();
        let (phase, reason) = (desired.status.phase, desired.status.reason.as_deref());
        info!(coordinator = name, ?phase, reason, "status of the coordinator written");
        let known_reason = coordinator.status.as_ref().and_then(|status| status.reason.as_deref());
        if reason != known_reason {
            self.publish(&coordinator, &desired).await;
        }
        Ok(pause)
    }

    fn written(&self) -> MutexGuard<'_, Option<Instant>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(
        &self,
        coordinator: &SpiderCoordinator,
        status: &SpiderCoordinatorStatus,
    ) -> Result<(), ApiFailure> {
        // An absent field is written as null: a merge patch would keep what is there.
        let patch = Patch::Merge(json!({
            "metadata": {"uid": coordinator.metadata.uid},
            "status": {
                "phase": status.phase,
                "reason": status.reason,
                "overlayPodCIDR": status.overlay_pod_cidr,
                "serviceCIDR": status.service_cidr,
            },
        }));
        let (name, parameters) =
            (coordinator.metadata.name.as_deref().unwrap_or_default(), patch_parameters());
        self.kube.write(self.coordinators.patch_status(name, &parameters, &patch)).await.map(|_| ())
    }

    /// An Event of the first problem or note, which `kubectl describe` shows. Failing to write it is logged only.
    async fn publish(&self, coordinator: &SpiderCoordinator, desired: &StatusPlan) {
        let problem = desired.problems.first().map(|problem| (EventType::Warning, problem.reason()));
        let note = desired.notes.first().map(|note| (note.event_type(), note.reason()));
        let Some((type_, reason)) = problem.or(note) else { return };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: desired.status.reason.clone(),
            action: "Sync".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &coordinator.object_ref(&())).await;
    }
}

/// Whether only the reason is another one.
fn says_the_same(known: Option<&SpiderCoordinatorStatus>, desired: &SpiderCoordinatorStatus) -> bool {
    known.is_some_and(|known| {
        let reason = desired.reason.clone();
        known.reason.is_some() && SpiderCoordinatorStatus { reason, ..known.clone() } == *desired
    })
}

impl Reconciler<Arc<str>> for CoordinatorReconciler {
    type Error = ApiFailure;

    async fn reconcile(&self, name: &Arc<str>, _since: Instant) -> Result<Action, ApiFailure> {
        Box::pin(self.reconcile_status(name)).await.map(Action::requeue)
    }

    fn failed(&self, name: &Arc<str>, error: &ApiFailure, pause: Duration) {
        warn!(coordinator = &**name, %error, ?pause, "status of the coordinator not written, trying again");
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_api::crd::CoordinatorPhase;

    use super::*;

    #[test]
    fn another_text_of_an_error_is_the_same_status_and_another_cidr_is_not() {
        let status = |reason: Option<&str>, cidr: &str| SpiderCoordinatorStatus {
            phase: CoordinatorPhase::Synced,
            reason: reason.map(str::to_owned),
            overlay_pod_cidr: vec![cidr.to_owned()],
            service_cidr: Vec::new(),
        };
        let known = status(Some("refused"), "10.0.0.0/8");
        assert!(says_the_same(Some(&known), &status(Some("timed out"), "10.0.0.0/8")));
        assert!(!says_the_same(Some(&known), &status(Some("timed out"), "10.1.0.0/16")));
        assert!(!says_the_same(Some(&status(None, "10.0.0.0/8")), &status(Some("refused"), "10.0.0.0/8")));
        assert!(!says_the_same(None, &known));
    }
}
