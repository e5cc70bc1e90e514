//! What every replica of the controller does, whether it leads or not: it serves its ports and stands for election.
//! Here are the order of start and end.

mod counts;
mod drain;
mod leadership;
mod servers;
mod webhooks;

use anyhow::Context as _;
use spiderpool_runtime::config_file::Content as _;
use spiderpool_runtime::health::{Health, Scope};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::leader::{Candidate, ElectionConfig};
use spiderpool_runtime::{file_limit, logging, metrics as exporter, shutdown};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::{ConfigFile, Daemon};
use crate::leader::LeaderContext;
use crate::leader::metrics::{Detail, Metrics};
use crate::webhook;

/// The Lease that the replicas compete for.
pub const LEASE: &str = "spiderpool-controller-leases";

/// Runs until SIGTERM or SIGINT.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let Daemon { config_path, environment } = daemon;
    logging::init(environment.log_level);
    file_limit::raise();
    let file = ConfigFile::load(&config_path)?;
    let timing = environment.election.timing()?;
    info!(pod = environment.pod_name, namespace = environment.pod_namespace, "spiderpool-controller starts");
    let kube = Kubernetes::connect().await?;
    let shutdown = shutdown::on_signals()?;

    let health = Health::default();
    let mut registry = exporter::registry("spiderpool-controller", &health, &kube);
    let detail = if environment.enabled_debug_metric { Detail::Debug } else { Detail::Usual };
    let metrics = Metrics::register(&mut registry, detail);
    let context = LeaderContext {
        kube: kube.clone(),
        environment: environment.clone(),
        certificate: webhooks::certificate(&environment),
        metrics,
        kept: file.kept_workloads(),
        subnets: file.subnets(),
        watches_synced: health.condition("watches", Scope::Readiness),
        tasks_healthy: health.condition("leader's tasks", Scope::Liveness),
    };
    context.tasks_healthy.met();
    let leader_known = health.condition("leader", Scope::Readiness);
    let config = ElectionConfig {
        namespace: environment.pod_namespace.clone(),
        lease: LEASE.to_owned(),
        identity: environment.pod_name.clone(),
        timing,
    };
    let (candidate, role) = Candidate::new(kube.clone(), config);
    let drained = drain::after(shutdown.clone(), &health, environment.shutdown_delay);
    let mut servers = servers::start(&environment, &health, registry, &drained).await?;
    if environment.enabled_metric {
        let (metrics, period) = (context.metrics.clone(), environment.metric_renew_period);
        servers.push(tokio::spawn(counts::run(kube.clone(), metrics, period, shutdown.clone())));
    }
    let hooks = webhooks::configured(&environment, &file, role.clone());
    servers.extend(webhook::start(hooks, &kube, &health, &drained).await?);
    let resign = CancellationToken::new();
    let election = tokio::spawn(candidate.run(resign.clone()));
    leadership::follow(context, role, leader_known, &shutdown).await;
    // The leader's work has ended, so another replica may begin: only now is the Lease given up.
    resign.cancel();
    election.await.context("election")?;
    for server in servers {
        server.await.context("server")?;
    }
    info!("spiderpool-controller ends");
    Ok(())
}
