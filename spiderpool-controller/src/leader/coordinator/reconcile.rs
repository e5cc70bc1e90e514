//! Keeps the status right: after each event that may change it, and from time to time.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::Patch;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource as _};
use serde_json::json;
use spiderpool_api::crd::{CoordinatorPhase, FINALIZER, SpiderCoordinator, SpiderCoordinatorStatus};
use spiderpool_runtime::kubernetes::{Failure, Kubernetes};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::plan::plan;
use super::source::{self, KUBEADM, ServiceCidr};
use crate::leader::metrics::Metrics;
use crate::patch_parameters;

/// Without an event it is looked again this often: not everything that changes tells.
const RENEW: Duration = Duration::from_mins(1);
/// Pause after a failure, doubled each time up to the limit.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Events that come together are answered together.
const GATHER: Duration = Duration::from_millis(50);

/// What keeping the status needs.
struct Keeper {
    kube: Kubernetes,
    coordinators: Api<SpiderCoordinator>,
    name: String,
    recorder: Recorder,
    metrics: Metrics,
}

/// Keeps the status of the coordinator `name` right until shutdown. `controller` is the name of our own pod.
pub async fn run(
    kube: Kubernetes,
    name: String,
    controller: String,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let reporter = Reporter { controller: "spiderpool".to_owned(), instance: Some(controller) };
    let keeper = Keeper {
        coordinators: Api::all(kube.client()),
        recorder: Recorder::new(kube.client(), reporter),
        kube,
        name,
        metrics,
    };
    let mut retry = RETRY;
    let services = loop {
        match source::served(&keeper.kube).await {
            Ok(services) => break services,
            Err(error) => warn!(%error, "cannot tell whether ServiceCIDRs are served, trying again"),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(retry)).await.is_none() {
            return;
        }
        retry = (retry * 2).min(LONGEST_RETRY);
    };
    let bell = Arc::new(Notify::new());
    let watching = keeper.watch(services.as_ref(), &bell);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = watching => {}
        () = keeper.keep(services.as_ref(), &bell) => {}
    }
}

impl Keeper {
    /// Rings when something may have changed. Never ends.
    async fn watch(&self, services: Option<&Api<ServiceCidr>>, bell: &Notify) {
        let client = self.kube.client();
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let coordinators = watcher(self.coordinators.clone(), named(&self.name));
        let maps = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client, KUBEADM.0);
        let maps = watcher(maps, named(KUBEADM.1));
        let services = async {
            match services {
                Some(api) => {
                    ring(watcher(api.clone(), watcher::Config::default()), "ServiceCIDRs", bell).await;
                }
                None => std::future::pending::<()>().await,
            }
        };
        futures::join!(
            ring(coordinators, "coordinators", bell),
            ring(maps, "kubeadm-config", bell),
            services
        );
    }

    /// Writes the status whenever it rings, and from time to time. Never ends.
    async fn keep(&self, services: Option<&Api<ServiceCidr>>, bell: &Notify) {
        let mut retry = RETRY;
        loop {
            let pause = match self.renew(services).await {
                Ok(()) => {
                    retry = RETRY;
                    RENEW
                }
                Err(error) => {
                    warn!(coordinator = self.name, %error, "the status cannot be renewed, trying again");
                    let pause = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                    pause
                }
            };
            tokio::select! {
                () = bell.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn renew(&self, services: Option<&Api<ServiceCidr>>) -> Result<(), Failure> {
        let Some(coordinator) = self.kube.read(self.coordinators.get_opt(&self.name)).await? else {
            debug!(coordinator = self.name, "there is no such coordinator");
            return Ok(());
        };
        if coordinator.metadata.deletion_timestamp.is_some() {
            return self.let_go(&coordinator).await;
        }
        let sources = source::read(&self.kube, services).await?;
        let wanted = plan(coordinator.spec.pod_cidr_type, &sources);
        if coordinator.status.as_ref() == Some(&wanted) {
            return Ok(());
        }
        self.write(&coordinator, &wanted).await?;
        self.metrics.coordinator_writes.inc();
        let (phase, reason) = (wanted.phase, wanted.reason.as_deref());
        info!(coordinator = self.name, ?phase, reason, "status of the coordinator written");
        let told = coordinator.status.as_ref().and_then(|status| status.reason.as_deref());
        if let Some(reason) = reason.filter(|reason| Some(*reason) != told) {
            self.tell(&coordinator, &wanted, reason).await;
        }
        Ok(())
    }

    async fn write(
        &self,
        coordinator: &SpiderCoordinator,
        wanted: &SpiderCoordinatorStatus,
    ) -> Result<(), Failure> {
        // What is absent must be said: a merge keeps what it does not hear of.
        let patch = Patch::Merge(json!({
            "metadata": {"uid": coordinator.metadata.uid},
            "status": {
                "phase": wanted.phase,
                "reason": wanted.reason,
                "overlayPodCIDR": wanted.overlay_pod_cidr,
                "serviceCIDR": wanted.service_cidr,
            },
        }));
        let parameters = patch_parameters();
        self.kube.write(self.coordinators.patch_status(&self.name, &parameters, &patch)).await.map(|_| ())
    }

    /// An event that `kubectl describe` shows. It is no part of the work: what fails here is only said.
    async fn tell(&self, coordinator: &SpiderCoordinator, status: &SpiderCoordinatorStatus, note: &str) {
        let (type_, reason) = match status.phase {
            CoordinatorPhase::NotReady => (EventType::Warning, "ClusterNotReady"),
            CoordinatorPhase::Synced => (EventType::Warning, "ServiceCIDRUnknown"),
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: "Sync".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &coordinator.object_ref(&())).await {
            warn!(%error, "the event cannot be written");
        }
    }

    /// Takes our finalizer from a coordinator that is being deleted: there is nothing to clean.
    async fn let_go(&self, coordinator: &SpiderCoordinator) -> Result<(), Failure> {
        let finalizers = coordinator.metadata.finalizers.clone().unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(());
        }
        let left: Vec<_> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
        let patch = Patch::Merge(json!({"metadata": {"uid": coordinator.metadata.uid, "finalizers": left}}));
        match self.kube.write(self.coordinators.patch(&self.name, &patch_parameters(), &patch)).await {
            Err(failure) if !failure.is_not_found() && !failure.is_conflict() => Err(failure),
            _ => Ok(()),
        }
    }
}

/// Rings at each event of a watch.
async fn ring<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    what: &'static str,
    bell: &Notify,
) {
    let mut events = std::pin::pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => bell.notify_one(),
            Err(error) => warn!(what, %error, "watch failed, trying again"),
        }
    }
}
