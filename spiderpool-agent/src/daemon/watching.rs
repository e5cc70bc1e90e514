//! The agent's watches, the probe of the API server, and the first listing of the node's addresses.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_api::node::nodes;
use spiderpool_api::pod::PodObject;
use spiderpool_runtime::health::{Condition, Health, Scope};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::reduced;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::agent::Agent;
use crate::config::Environment;
use crate::destinations::ClusterCidrs;
use crate::ipam::Indexes;
use crate::node_lease::NodeLease;
use crate::watches::{CoordinatorIndex, Index, OwnNode, OwnNodeIndex, Shared, WatchedNamespace, follow};

type Task = tokio::task::JoinHandle<()>;

/// How often the API server is probed.
const PROBE_PERIOD: Duration = Duration::from_secs(5);

/// Starts all of them.
pub(super) fn start(
    agent: &Arc<Agent>,
    kube: &Kubernetes,
    indexes: &Indexes,
    environment: &Environment,
    health: &Health,
    shutdown: &CancellationToken,
) -> Vec<Task> {
    let client = kube.client();
    let node = &environment.node_name;
    let of_node = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let pods = Watch::new("watch of pods", health, shutdown);
    let namespaces = Watch::new("watch of namespaces", health, shutdown);
    let pools = Watch::new("watch of pools", health, shutdown);
    let reserved = Watch::new("watch of reserved addresses", health, shutdown);
    let coordinators = Watch::new("watch of coordinators", health, shutdown);
    let on_coordinator = {
        let (agent, pools) = (Arc::clone(agent), indexes.pools.clone());
        move || {
            let service_cidrs = agent.coordinators.read(CoordinatorIndex::service_cidrs);
            pools.write(|pools| pools.set_service_cidrs(service_cidrs));
            set_cluster(&agent);
        }
    };
    let on_pods = {
        let agent = Arc::clone(agent);
        move || agent.ipam.pods_changed()
    };
    let on_pools = {
        let agent = Arc::clone(agent);
        move || agent.ipam.pool_specs().changed()
    };
    let pool_events =
        watcher(Api::<PartialObjectMeta<SpiderIPPool>>::all(client.clone()), watcher::Config::default());
    let namespace_events =
        watcher(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), watcher::Config::default());
    let mut tasks = vec![
        pods.start(watcher(Api::<PodObject>::all(client.clone()), of_node), &indexes.pods, on_pods),
        namespaces.start(reduced(namespace_events, WatchedNamespace::from), &indexes.namespaces, || {}),
        pools.start(pool_events, &indexes.pools, on_pools),
        tokio::spawn(
            agent
                .ipam
                .pool_specs()
                .clone()
                .run(health.condition("specs of pools", Scope::Readiness), shutdown.clone()),
        ),
        reserved.start(all(&client), &indexes.reserved, || {}),
        coordinators.start(all(&client), &agent.coordinators, on_coordinator),
        tokio::spawn(probe(kube.clone(), health.condition("API server", Scope::Readiness), shutdown.clone())),
        tokio::spawn(list_addresses(
            Arc::clone(agent),
            health.clone(),
            health.condition("addresses of the node", Scope::Startup),
            shutdown.clone(),
        )),
    ];
    tasks.extend(follow_own_node(agent, kube, &indexes.own_node, environment, health, shutdown));
    tasks
}

/// Follows the agent's own Node, and keeps its Lease.
fn follow_own_node(
    agent: &Arc<Agent>,
    kube: &Kubernetes,
    index: &Shared<OwnNodeIndex>,
    environment: &Environment,
    health: &Health,
    shutdown: &CancellationToken,
) -> [Task; 2] {
    let node = &environment.node_name;
    let name = "watch of the node";
    // A request that needs its labels before that reads them itself.
    let synced = health.condition(name, Scope::Readiness);
    let of_itself = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let events = reduced(watcher(nodes(kube.client()), of_itself), OwnNode::from);
    let (sender, own_node) = tokio::sync::watch::channel(None);
    let on_change = {
        let index = index.clone();
        move || {
            let now = index.read(OwnNodeIndex::get);
            // Kubelets write their Node every few seconds.
            sender.send_if_modified(|known| mem::replace(known, now.clone()) != now);
        }
    };
    let lease =
        NodeLease::new(kube.clone(), Arc::clone(&agent.ipam), node.clone(), &environment.pod_namespace);
    let (start, ended) = (agent.start.clone(), shutdown.clone());
    let keep = async move {
        if ended.run_until_cancelled(start.until_done()).await.is_some() {
            Box::pin(lease.run(own_node, ended)).await;
        }
    };
    [
        Watch { name, synced, shutdown: shutdown.clone() }.start(events, index, on_change),
        tokio::spawn(keep.instrument(info_span!("node lease"))),
    ]
}

/// Everything of a cluster-scoped kind.
fn all<K>(client: &Client) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    watcher(Api::all(client.clone()), watcher::Config::default())
}

struct Watch {
    name: &'static str,
    synced: Condition,
    shutdown: CancellationToken,
}

impl Watch {
    fn new(name: &'static str, health: &Health, shutdown: &CancellationToken) -> Self {
        Self { name, synced: health.condition(name, Scope::Startup), shutdown: shutdown.clone() }
    }

    fn start<K, I>(
        self,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        index: &Shared<I>,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Task
    where
        K: Send + 'static,
        I: Index<K>,
    {
        let span = info_span!("watch", name = self.name);
        tokio::spawn(follow(events, index.clone(), self.synced, self.shutdown, changed).instrument(span))
    }
}

/// Hands the CIDRs of the SpiderCoordinator to the reconciler, if its status may be used.
fn set_cluster(agent: &Agent) {
    let coordinator = agent.coordinators.read(CoordinatorIndex::chosen);
    if let Some(coordinator) = &coordinator {
        agent.fallback.set_wanted(crate::coordinator::wanted_dataplane(&coordinator.spec.settings));
    }
    let ready = coordinator.filter(|coordinator| crate::coordinator::check_ready(coordinator).is_ok());
    if let Some(coordinator) = ready {
        let cidrs = ClusterCidrs::from_coordinator(&coordinator);
        agent.service_cidrs.send_if_modified(|known| {
            let changed = *known != cidrs.service;
            known.clone_from(&cidrs.service);
            changed
        });
        agent.reconciler.set_cluster(cidrs);
    }
}

async fn probe(kube: Kubernetes, reachable: Condition, shutdown: CancellationToken) {
    loop {
        match kube.probe().await {
            Ok(()) => reachable.met(),
            Err(failure) => reachable.unmet(failure.to_string()),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(PROBE_PERIOD)).await.is_none() {
            return;
        }
    }
}

/// Lists the node's addresses, ends the start when every watch has listed, and then frees what belongs to pods that
/// are gone.
async fn list_addresses(agent: Arc<Agent>, health: Health, listed: Condition, shutdown: CancellationToken) {
    agent.ipam.load(&shutdown).await;
    listed.met();
    while health.started().is_err() {
        if shutdown.run_until_cancelled(tokio::time::sleep(Duration::from_millis(10))).await.is_none() {
            return;
        }
    }
    agent.start.done();
    agent.ipam.sweep(&shutdown).await;
}
