//! The controller as a process: what is started in which order, and how it ends.

use std::sync::Arc;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use spiderpool_runtime::config_file::Content as _;
use spiderpool_runtime::health::{Condition, Health, Scope};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::leader::{Candidacy, Candidate, Role};
use spiderpool_runtime::shutdown::{self, Shutdown};
use spiderpool_runtime::{http, logging, metrics};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::config::{ConfigFile, Daemon, Environment};
use crate::lead::{Office, lead};
use crate::metrics::Metrics;

/// The Lease that the replicas compete for.
pub const LEASE: &str = "spiderpool-controller-leases";

/// Serves until SIGTERM or SIGINT.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let Daemon { config_path, environment } = daemon;
    logging::init(environment.log_level);
    ConfigFile::load(&config_path)?;
    let terms = environment.election.terms()?;
    info!(pod = environment.pod_name, namespace = environment.pod_namespace, "spiderpool-controller starts");
    let kube = Kubernetes::connect().await?;
    let (trigger, shutdown) = shutdown::channel();
    trigger.on_signals()?;

    let (health, mut registry) = (Health::default(), Registry::default());
    let metrics = Metrics::register(&mut registry);
    let office = Office {
        kube: kube.clone(),
        environment: environment.clone(),
        metrics,
        caches: health.condition("watches", Scope::Readiness),
        whole: health.condition("leader's work", Scope::Liveness),
    };
    office.whole.met();
    let leader = health.condition("leader", Scope::Readiness);
    let servers = serve(&environment, &health, registry, &shutdown).await?;

    let candidacy = Candidacy {
        namespace: environment.pod_namespace.clone(),
        lease: LEASE.to_owned(),
        identity: environment.pod_name.clone(),
        terms,
    };
    let (candidate, role) = Candidate::new(kube, candidacy);
    let (retired, retirement) = shutdown::channel();
    let standing = tokio::spawn(candidate.run(retirement));
    follow_role(office, role, leader, &shutdown).await;
    // The work has ended: now another one may begin.
    retired.request();
    standing.await.context("election")?;
    for server in servers {
        server.await.context("server")?;
    }
    info!("spiderpool-controller ends");
    Ok(())
}

/// Works whenever this process leads, until shutdown.
async fn follow_role(office: Office, mut role: watch::Receiver<Role>, known: Condition, shutdown: &Shutdown) {
    while !shutdown.is_requested() {
        let now = role.borrow_and_update().clone();
        match &now {
            Role::Unknown => known.unmet("nobody is known to lead: can the Lease be read and written?"),
            Role::Follower { .. } | Role::Leader => known.met(),
        }
        office.metrics.leader.set(i64::from(now == Role::Leader));
        if now == Role::Leader {
            let (trigger, leading) = shutdown::channel();
            let work = tokio::spawn(lead(office.clone(), leading));
            tokio::select! {
                () = shutdown.requested() => {}
                _ = role.wait_for(|role| *role != Role::Leader) => {}
            }
            trigger.request();
            if let Err(error) = work.await {
                error!(%error, "the leader's work has failed");
            }
            continue;
        }
        // Who does not lead has no watches.
        office.caches.met();
        tokio::select! {
            () = shutdown.requested() => {}
            changed = role.changed() => if changed.is_err() { return },
        }
    }
}

/// The probes and the metrics.
async fn serve(
    environment: &Environment,
    health: &Health,
    registry: Registry,
    shutdown: &Shutdown,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let probes = http::bind(environment.health_port).await;
    let probes = probes.with_context(|| format!("port {} of the health probes", environment.health_port))?;
    info!(address = %probes.local_addr()?, "health probes are served");
    let mut servers = vec![spawn("health probes", http::serve(probes, health.router(), shutdown.clone()))];
    if environment.enabled_metric {
        let port = environment.metric_http_port;
        let listener = http::bind(port).await.with_context(|| format!("port {port} of the metrics"))?;
        info!(address = %listener.local_addr()?, "metrics are served");
        let router = metrics::router(Arc::new(registry));
        servers.push(spawn("metrics", http::serve(listener, router, shutdown.clone())));
    }
    Ok(servers)
}

fn spawn(
    what: &'static str,
    serving: impl Future<Output = std::io::Result<()>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            error!(what, %error, "server failed");
        }
    })
}
