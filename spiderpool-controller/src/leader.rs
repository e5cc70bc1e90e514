//! What only the elected replica does: it watches the cluster and reconciles pods, pools and the coordinator. Begun
//! when the process is elected, ended when it is not the leader any more.

pub mod coordinator;
pub mod metrics;
pub mod pods;
pub mod pools;
pub mod schedule;
pub mod state;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use spiderpool_runtime::health::{Condition, Health};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span};

use crate::config::Environment;
use metrics::Metrics;
use pods::Collector;
use pools::Writer;
use state::ClusterState;

/// How often it is checked whether all watches have listed.
const POLL: Duration = Duration::from_millis(20);
/// How often gauges and readiness are updated.
const UPDATE: Duration = Duration::from_secs(2);

/// What the leader's work needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LeaderContext {
    pub(crate) kube: Kubernetes,
    pub(crate) environment: Environment,
    pub(crate) metrics: Metrics,
    /// Readiness: met while the leader's watches work.
    pub(crate) watches_synced: Condition,
    /// Liveness: unmet when a task of the leader has panicked, which only a restart repairs.
    pub(crate) tasks_healthy: Condition,
}

/// Who is notified when the state has changed.
#[derive(Clone, Default)]
struct Triggers {
    pools: Arc<Notify>,
    pods: Arc<Notify>,
}

impl Triggers {
    fn notify(&self) {
        self.pools.notify_one();
        self.pods.notify_one();
    }
}

/// Works until shutdown; everything has ended when it returns.
pub(crate) async fn run(context: LeaderContext, shutdown: CancellationToken) {
    let (state, triggers) = (Shared::<ClusterState>::default(), Triggers::default());
    let watches = Health::default();
    let mut tasks = JoinSet::new();
    context.watches_synced.unmet("the leader's watches have not listed yet");
    watches::spawn_all(&context.kube.client(), &state, &triggers, &watches, &shutdown, &mut tasks);
    if context.environment.coordinator.coordinator_enabled {
        let name = context.environment.coordinator.coordinator_name.clone();
        let controller = context.environment.pod_name.clone();
        let (kube, metrics) = (context.kube.clone(), context.metrics.clone());
        let task = coordinator::run(kube, name, controller, metrics, shutdown.clone());
        tasks.spawn(task.instrument(info_span!("coordinator")));
    }
    // Nothing is decided by watches that have not listed.
    while watches.started().is_err() && shutdown.run_until_cancelled(tokio::time::sleep(POLL)).await.is_some()
    {
    }
    if !shutdown.is_cancelled() {
        info!("the leader's watches have listed");
        let settings = pods::Settings::from(&context.environment.collection);
        let writer = Writer::new(context.kube.clone(), state.clone(), context.metrics.clone());
        let collector =
            Collector::new(context.kube.clone(), state.clone(), settings, context.metrics.clone());
        tasks
            .spawn(writer.run(Arc::clone(&triggers.pools), shutdown.clone()).instrument(info_span!("pools")));
        let collecting = collector.run(Arc::clone(&triggers.pods), shutdown.clone());
        tasks.spawn(collecting.instrument(info_span!("pods")));
        tasks.spawn(update_gauges(context.clone(), state, watches, shutdown.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a task of the leader has failed");
            context.tasks_healthy.unmet("a task of the leader has failed: see the log");
        }
    }
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
