//! The agent as a process: the order in which its parts start and end.

mod memory_limit;
mod own_socket;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use prometheus_client::registry::Registry;
use spiderpool_core::ip::Family;
use spiderpool_runtime::config_file::Content as _;
use spiderpool_runtime::health::{Condition, Health, Scope};
use spiderpool_runtime::http::{self as server, Limits};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::{file_limit, logging, metrics, shutdown};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::agent::Agent;
use crate::config::{ConfigFile, Daemon, Environment};
use crate::dataplane::{self, DataplaneMetrics};
use crate::fallback::Fallback;
use crate::host_ends::HostEvent;
use crate::ipam::{Indexes, Ipam, IpamMetrics};
use crate::node::missing_plugins;
use crate::node_addresses::NodeChange;
use crate::node_events::{self, NodeEvents};
use crate::start::Start;
use crate::watches::Shared;
use crate::{host_ends, http, ipam, multus, node_addresses, pod_network, reconciler};

/// How long the shutdown waits for endpoints that are not written yet.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
pub async fn run(daemon: Daemon) -> anyhow::Result<()> {
    let Daemon { config_path, environment } = daemon;
    logging::init(environment.log_level);
    file_limit::raise();
    if environment.raise_memlock {
        memory_limit::lift().context("limit of locked memory (capability SYS_RESOURCE)")?;
    }
    let file = ConfigFile::load(&config_path)?;
    let families = file.families();
    info!(node = %environment.node_name, ?families, socket = %file.socket().display(), "spiderpool-agent starts");
    let kube = Kubernetes::connect().await?;
    let shutdown = shutdown::on_signals()?;

    let health = Health::default();
    let mut registry = metrics::registry("spiderpool-agent", &health, &kube);
    let indexes = Indexes::default();
    let settings = settings(&environment, &file, families);
    let metrics = IpamMetrics::register(&mut registry);
    let start = Start::default();
    start.set_health(health.clone());
    let (node_events, said) = NodeEvents::new();
    let ipam =
        Ipam::new(settings, kube.clone(), indexes.clone(), metrics, node_events.clone(), start.clone());
    let dataplane_metrics = DataplaneMetrics::register(&mut registry);
    let multus = start_multus(&environment, &health, &kube, &node_events, &shutdown);
    let ready = health.condition("dataplane", Scope::Readiness);
    let fallback = Fallback::new(ready, dataplane_metrics.fallback.clone(), node_events.clone());
    let (reconciler, first_try) =
        start_reconciler(&environment, dataplane_metrics, fallback.clone(), node_events)?;
    let events =
        tokio::spawn(node_events::write(said, kube.clone(), environment.node_name.clone(), shutdown.clone()));
    let agent = Arc::new(Agent {
        ipam,
        reconciler: reconciler.clone(),
        fallback,
        start,
        coordinators: Shared::default(),
        service_cidrs: watch::Sender::default(),
        node_addresses: Shared::default(),
    });
    follow_node_addresses(&agent, health.condition("node addresses", Scope::Readiness))?;
    let checked = agent.reconciler.clone();
    host_ends::follow(move |event| match event {
        HostEvent::Changed(host, change) => checked.check(&host, change),
        HostEvent::AddressGone => checked.node_address_gone(),
    })
    .context("thread for node links")?;
    let watching = watching::start(&agent, &kube, &indexes, &environment, &health, &shutdown);
    // A registration before that would be refused only because loading has not been tried yet.
    first_try.await.context("reconciler thread")?;
    let serving = serve(&agent, &environment, &file, &health, registry, &shutdown).await?;
    let served = CancellationToken::new();
    let endpoints = tokio::spawn({
        let (agent, served) = (Arc::clone(&agent), served.clone());
        async move { agent.ipam.endpoints().run(&served, FLUSH_TIMEOUT).await }
    });

    shutdown.cancelled().await;
    // Requests first: they may still put endpoints into the queue.
    for task in serving {
        task.await.context("server")?;
    }
    served.cancel();
    endpoints.await.context("endpoints")?;
    for task in watching {
        task.await.context("watch")?;
    }
    multus.await.context("Multus")?;
    events.await.context("Events of the node")?;
    reconciler.stop();
    info!("spiderpool-agent ends");
    Ok(())
}

fn start_multus(
    environment: &Environment,
    health: &Health,
    kube: &Kubernetes,
    events: &NodeEvents,
    shutdown: &CancellationToken,
) -> Task {
    let options = environment.multus.clone();
    let place = multus::Place {
        node: environment.node_name.clone(),
        host: environment.plugins.host.clone(),
        cni_bin: environment.plugins.cni_bin_dir.clone(),
        namespace: environment.pod_namespace.clone(),
        cluster_network: environment.multus_cluster_network.clone(),
    };
    let settled = options.is_wanted().then(|| health.condition("Multus", Scope::Readiness));
    tokio::spawn(multus::keep(options, place, kube.clone(), events.clone(), settled, shutdown.clone()))
}

fn settings(environment: &Environment, file: &ConfigFile, families: Vec<Family>) -> ipam::IpamSettings {
    ipam::IpamSettings {
        node: environment.node_name.clone(),
        families,
        namespace: environment.pod_namespace.clone(),
        cluster_network: environment.multus_cluster_network.clone(),
        auto_pools: file.enable_spider_subnet && file.enable_auto_pool_for_application,
        kept_workloads: file.kept_workloads(),
        release_conflicts: environment.enabled_release_conflict_ips,
        duplicate_address_detection: file.enable_duplicate_address_detection,
        detection: file.detection(),
        quarantine_time: file.quarantine_time(),
        state_dir: environment.state_dir.clone(),
    }
}

fn start_reconciler(
    environment: &Environment,
    metrics: DataplaneMetrics,
    fallback: Fallback,
    events: NodeEvents,
) -> anyhow::Result<(reconciler::Handle, oneshot::Receiver<()>)> {
    let state_file = pod_network::state_path(&environment.state_dir);
    let settings = dataplane::DataplaneSettings {
        object: environment.bpf_object.clone(),
        pin_dir: environment.bpf_dir.clone(),
        sizes: environment.map_sizes.sizes(),
        mount_namespace: environment.node_mount_namespace.clone(),
    };
    reconciler::start(state_file, settings, metrics, fallback, events).context("reconciler thread")
}

fn follow_node_addresses(agent: &Arc<Agent>, followed: Condition) -> anyhow::Result<()> {
    let agent = Arc::clone(agent);
    let services = agent.service_cidrs.subscribe();
    node_addresses::follow(followed, services, move |change| match change {
        NodeChange::Addresses(addresses) => {
            agent.node_addresses.write(|known| known.clone_from(&addresses));
            agent.reconciler.set_nodes(addresses);
        }
        NodeChange::PodDevices(devices) => agent.reconciler.set_pod_devices(devices),
    })
    .context("thread for node addresses")
}

type Task = tokio::task::JoinHandle<()>;

/// The unix socket, the probes and the metrics; and the plugins that ask at the socket.
async fn serve(
    agent: &Arc<Agent>,
    environment: &Environment,
    file: &ConfigFile,
    health: &Health,
    registry: Registry,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<Task>> {
    // The kubelet asks on the loopback: other hosts and pods of the node do not reach this port.
    let probes = server::bind_loopback(environment.health_port).await;
    let probes = probes.with_context(|| format!("port {} of the health probes", environment.health_port))?;
    let mut listener = None;
    if environment.enabled_metric {
        let port = environment.metric_http_port;
        listener = Some(server::bind_all(port).await.with_context(|| format!("port {port} of the metrics"))?);
    }
    // Last: a second agent on this node fails at the ports, before it replaces the socket of the first.
    let socket = http::bind(file.socket())?;
    let reachable = health.condition("own socket", Scope::Liveness);
    // Bound: the kernel queues connections until we accept.
    reachable.met();
    let mut tasks = vec![
        tokio::spawn(server::serve(
            socket,
            http::router(Arc::clone(agent)),
            Limits::SOCKET,
            shutdown.clone(),
        )),
        tokio::spawn(own_socket::watch(file.socket().to_owned(), reachable, shutdown.clone())),
        tokio::spawn(missing_plugins::restore(environment.plugins.clone(), shutdown.clone())),
    ];
    for listener in probes {
        info!(address = %listener.local_addr()?, "health probes are served");
        tasks.push(tokio::spawn(server::serve(listener, health.router(), Limits::PORT, shutdown.clone())));
    }
    if let Some(listener) = listener {
        info!(address = %listener.local_addr()?, "metrics are served");
        let router: Router = metrics::router(Arc::new(registry));
        tasks.push(tokio::spawn(server::serve(listener, router, Limits::PORT, shutdown.clone())));
    }
    Ok(tasks)
}
