//! What only the elected replica does: it watches the cluster and reconciles pods, pools, networks and the
//! coordinator. Begun when the process is elected, ended when it is not the leader any more.

mod coordinator;
mod dispatch;
pub(crate) mod metrics;
mod multus;
mod pods;
mod pools;
mod reserved;
mod state;
mod subnets;
mod virtual_machines;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::{Recorder, Reporter};
use spiderpool_api::virtual_machine::MachineKind;
use spiderpool_core::ipam::KeptWorkloads;
use spiderpool_runtime::health::{Condition, Health};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::work_queue;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span};

use crate::config::{Environment, SubnetSettings};
use crate::webhook::{CaBundleKeeper, CertificateSettings};
use coordinator::{CoordinatorContext, CoordinatorTrigger};
use dispatch::Dispatcher;
use metrics::Metrics;
use pods::PodReconciler;
use pools::ServiceAccount;
use state::ClusterState;
use subnets::Subnets;
use watches::Followed;

/// How often it is checked whether all watches have listed.
const POLL: Duration = Duration::from_millis(20);
/// How often gauges and readiness are updated.
const UPDATE: Duration = Duration::from_secs(2);

/// What the leader's work needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaderContext {
    pub(crate) kube: Kubernetes,
    pub(crate) environment: Environment,
    pub(crate) certificate: CertificateSettings,
    pub(crate) metrics: Metrics,
    /// Which workloads' pods leave their addresses to the next one.
    pub(crate) kept: KeptWorkloads,
    /// Whether there are SpiderSubnets, and what is made of them.
    pub(crate) subnets: SubnetSettings,
    /// Readiness: met while the leader's watches work.
    pub(crate) watches_synced: Condition,
    /// Liveness: unmet when a task of the leader has panicked, which only a restart repairs.
    pub(crate) tasks_healthy: Condition,
}

/// Works until shutdown; everything has ended when it returns.
pub(crate) async fn run(context: LeaderContext, shutdown: CancellationToken) {
    let (state, changed) = (Shared::<ClusterState>::default(), Arc::new(Notify::new()));
    let watches = Health::default();
    let mut tasks = JoinSet::new();
    context.watches_synced.unmet("the leader's watches have not listed yet");
    let (client, namespace) = (context.kube.client(), &context.environment.pod_namespace);
    watches::spawn_all(
        &client,
        &Followed { namespace, stateful_sets: context.kept.stateful_sets },
        &state,
        &changed,
        &watches,
        &shutdown,
        &mut tasks,
    );
    let reporter = Reporter {
        controller: "spiderpool".to_owned(),
        instance: Some(context.environment.pod_name.clone()),
    };
    let bundle = CaBundleKeeper {
        kube: context.kube.clone(),
        settings: context.certificate.clone(),
        recorder: Recorder::new(client.clone(), reporter),
    };
    tasks.spawn(bundle.run(shutdown.clone()).instrument(info_span!("certificate")));
    let coordinator = spawn_coordinator(&context, &state, &shutdown, &mut tasks);
    if context.environment.multus_config_enabled {
        let networks =
            multus::run(context.kube.clone(), context.environment.pod_name.clone(), shutdown.clone());
        tasks.spawn(networks.instrument(info_span!("multus")));
    }
    // Nothing is decided by watches that have not listed.
    while watches.started().is_err() && shutdown.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some()
    {
    }
    if !shutdown.is_cancelled() {
        info!("the leader's watches have listed");
        spawn_reconcilers(&context, &state, coordinator, changed, &shutdown, &mut tasks);
        tasks.spawn(update_gauges(context.clone(), state, watches, shutdown));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a task of the leader has failed");
            context.tasks_healthy.unmet("a task of the leader has failed: see the log");
        }
    }
    context.metrics.forget_cluster();
}

/// The coordinator's reconciler has watches of its own and does not wait for the others, except for that of nodes.
fn spawn_coordinator(
    context: &LeaderContext,
    state: &Shared<ClusterState>,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Option<CoordinatorTrigger> {
    let settings = context.environment.coordinator.clone();
    if !settings.coordinator_enabled {
        return None;
    }
    let (queue, workers) = work_queue();
    let trigger = CoordinatorTrigger::new(&settings.coordinator_name, queue);
    let context = CoordinatorContext {
        kube: context.kube.clone(),
        state: state.clone(),
        metrics: context.metrics.clone(),
        pod: context.environment.pod_name.clone(),
    };
    let reconciling = coordinator::run(context, settings, trigger.clone(), workers, shutdown.clone());
    tasks.spawn(reconciling.instrument(info_span!("coordinator")));
    Some(trigger)
}

/// Each reconciler has its queue and workers; `changed` wakes the dispatcher that fills the queues.
fn spawn_reconcilers(
    context: &LeaderContext,
    state: &Shared<ClusterState>,
    coordinator: Option<CoordinatorTrigger>,
    changed: Arc<Notify>,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let (kube, metrics) = (context.kube.clone(), context.metrics.clone());
    let settings = pods::GcSettings::new(&context.environment.garbage_collection, context.kept);
    let reporter = Reporter {
        controller: "spiderpool".to_owned(),
        instance: Some(context.environment.pod_name.clone()),
    };
    let recorder = Recorder::new(kube.client(), reporter);
    let reserved = reserved::run(kube.client(), recorder.clone(), shutdown.clone());
    tasks.spawn(reserved.instrument(info_span!("reserved")));
    let pods = Arc::new(PodReconciler::new(
        kube.clone(),
        &context.environment.pod_namespace,
        state.clone(),
        settings,
        metrics.clone(),
        recorder.clone(),
    ));
    let (pod_queue, pod_workers) = work_queue();
    let reconciling = pods::run(Arc::clone(&pods), pod_workers, shutdown.clone());
    tasks.spawn(reconciling.instrument(info_span!("pods")));
    let (pool_queue, pool_workers) = work_queue();
    let reconciling = pools::run(
        kube,
        state.clone(),
        metrics,
        recorder.clone(),
        ServiceAccount {
            namespace: context.environment.pod_namespace.clone(),
            name: context.environment.agent_service_account.clone(),
        },
        (pool_queue.clone(), pool_workers),
        shutdown.clone(),
    );
    tasks.spawn(reconciling.instrument(info_span!("pools")));
    let gauges = context.environment.enabled_metric.then(|| context.metrics.by_subnet.clone());
    let subnets = Subnets::new(context.kube.clone(), context.subnets, gauges);
    let subnet_trigger = subnets.trigger();
    let reconciling = subnets.run(state.clone(), recorder, shutdown.clone());
    tasks.spawn(reconciling.instrument(info_span!("subnets")));
    if context.kept.virtual_machines {
        for kind in [MachineKind::Machine, MachineKind::Instance] {
            let (kube, changed) = (context.kube.clone(), Arc::clone(&changed));
            let machines = virtual_machines::run(kube, kind, state.clone(), changed, shutdown.clone());
            tasks.spawn(machines.instrument(info_span!("virtual machines", kind = kind.as_str())));
        }
    }
    let dispatcher = Dispatcher {
        state: state.clone(),
        pods,
        pod_queue,
        pool_queue,
        subnets: subnet_trigger,
        coordinator,
    };
    tasks.spawn(dispatcher.run(changed, shutdown.clone()));
}

/// Keeps gauges and readiness up to date.
async fn update_gauges(
    context: LeaderContext,
    state: Shared<ClusterState>,
    watches: Health,
    shutdown: CancellationToken,
) {
    loop {
        match watches.ready() {
            Ok(()) => context.watches_synced.met(),
            Err(missing) => context.watches_synced.unmet(missing.join(", ")),
        }
        state.read(|state| {
            context.metrics.pools.set(state.pools.len() as i64);
            context.metrics.addresses.set(state.addresses.len() as i64);
            context.metrics.pods.set(state.pods.len() as i64);
        });
        if shutdown.run_until_cancelled(tokio::time::sleep(UPDATE)).await.is_none() {
            return;
        }
    }
}
