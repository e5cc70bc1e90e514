//! Writes the status and an Event of what is wrong, and removes our finalizer from a coordinator that is being deleted.

use std::sync::Arc;
use std::time::Duration;

use kube::api::Patch;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource as _};
use serde_json::json;
use spiderpool_api::crd::{FINALIZER, SpiderCoordinator, SpiderCoordinatorStatus};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes, publish_event};
use spiderpool_runtime::work_queue::{Action, Reconciler};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::plan::{StatusPlan, plan};
use super::source::{self, ServiceCidr};
use crate::leader::metrics::Metrics;
use crate::patch_parameters;

/// Interval of reconciliations without an event: some of what the status depends on is not watched.
const RESYNC: Duration = Duration::from_mins(1);

/// Reconciles coordinators.
pub(super) struct CoordinatorReconciler {
    kube: Kubernetes,
    coordinators: Api<SpiderCoordinator>,
    services: Option<Api<ServiceCidr>>,
    recorder: Recorder,
    metrics: Metrics,
}

impl CoordinatorReconciler {
    pub(super) fn new(
        kube: Kubernetes,
        services: Option<Api<ServiceCidr>>,
        recorder: Recorder,
        metrics: Metrics,
    ) -> Self {
        Self { coordinators: Api::all(kube.client()), kube, services, recorder, metrics }
    }

    async fn reconcile_status(&self, name: &str) -> Result<(), ApiFailure> {
        let Some(coordinator) = self.kube.read(self.coordinators.get_opt(name)).await? else {
            debug!(coordinator = name, "SpiderCoordinator does not exist");
            return Ok(());
        };
        let meta = &coordinator.metadata;
        if meta.deletion_timestamp.is_some() {
            // There is nothing to clean up.
            let parameters = patch_parameters();
            return self.kube.remove_finalizer(&self.coordinators, meta, FINALIZER, &parameters).await;
        }
        let sources = source::read(&self.kube, self.services.as_ref()).await?;
        let desired = plan(coordinator.spec.pod_cidr_type, &sources);
        if coordinator.status.as_ref() == Some(&desired.status) {
            return Ok(());
        }
        self.write(&coordinator, &desired.status).await?;
        self.metrics.coordinator_writes.inc();
        let (phase, reason) = (desired.status.phase, desired.status.reason.as_deref());
        info!(coordinator = name, ?phase, reason, "status of the coordinator written");
        let known_reason = coordinator.status.as_ref().and_then(|status| status.reason.as_deref());
        if reason != known_reason {
            self.publish(&coordinator, &desired).await;
        }
        Ok(())
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

    /// An Event of the first problem, which `kubectl describe` shows. Failing to write it is logged only.
    async fn publish(&self, coordinator: &SpiderCoordinator, desired: &StatusPlan) {
        let Some(problem) = desired.problems.first() else { return };
        let event = Event {
            type_: EventType::Warning,
            reason: problem.reason().to_owned(),
            note: desired.status.reason.clone(),
            action: "Sync".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &coordinator.object_ref(&())).await;
    }
}

impl Reconciler<Arc<str>> for CoordinatorReconciler {
    type Error = ApiFailure;

    async fn reconcile(&self, name: &Arc<str>, _since: Instant) -> Result<Action, ApiFailure> {
        self.reconcile_status(name).await?;
        Ok(Action::requeue(RESYNC))
    }

    fn failed(&self, name: &Arc<str>, error: &ApiFailure, pause: Duration) {
        warn!(coordinator = &**name, %error, ?pause, "status of the coordinator not written, trying again");
    }
}
