//! The leader's work: begun when the process is elected, ended when it is not the leader any more.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use spiderpool_api::crd::{SpiderEndpoint, SpiderIPAddress, SpiderIPPool};
use spiderpool_api::pod::PodObject;
use spiderpool_runtime::health::{Condition, Health, Scope};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::shutdown::Shutdown;
use spiderpool_runtime::watch::{Index, Shared, follow, reduced};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{Instrument, error, info, info_span};

use crate::config::Environment;
use crate::coordinator;
use crate::gc::Collector;
use crate::metrics::Metrics;
use crate::pools::Writer;
use crate::world::{SlimAddress, SlimEndpoint, SlimNode, SlimPod, World, slim};

/// Objects of a page when a watch begins: what is decoded at the same time.
const PAGE: u32 = 200;
/// How often it is asked whether the watches have listed.
const LOOK: Duration = Duration::from_millis(20);
/// How often gauges and readiness are renewed.
const RENEW: Duration = Duration::from_secs(2);

/// What the work needs.
#[derive(Clone)]
pub(crate) struct Office {
    pub(crate) kube: Kubernetes,
    pub(crate) environment: Environment,
    pub(crate) metrics: Metrics,
    /// Met while the watches work; for the probe of readiness.
    pub(crate) caches: Condition,
    /// Unmet when a part of the work has failed: only a restart helps.
    pub(crate) whole: Condition,
}

/// Who is told when the world has changed.
#[derive(Clone, Default)]
struct Bells {
    writer: Arc<Notify>,
    collector: Arc<Notify>,
}

impl Bells {
    fn ring(&self) {
        self.writer.notify_one();
        self.collector.notify_one();
    }
}

/// Works until shutdown.
pub(crate) async fn lead(office: Office, shutdown: Shutdown) {
    let (world, bells, watches) = (Shared::<World>::default(), Bells::default(), Health::default());
    let mut tasks = JoinSet::new();
    office.caches.unmet("the leader's watches have not listed yet");
    watch_all(&office.kube.client(), &world, &bells, &watches, &shutdown, &mut tasks);
    if office.environment.coordinator.coordinator_enabled {
        let name = office.environment.coordinator.coordinator_name.clone();
        let controller = office.environment.pod_name.clone();
        let (kube, metrics) = (office.kube.clone(), office.metrics.clone());
        let task = coordinator::run(kube, name, controller, metrics, shutdown.clone());
        tasks.spawn(task.instrument(info_span!("coordinator")));
    }
    // Nothing is decided by watches that have not listed.
    while watches.started().is_err() && shutdown.sleep(LOOK).await {}
    if !shutdown.is_requested() {
        info!("the leader's watches have listed");
        let settings = office.environment.collection.settings();
        let writer = Writer::new(office.kube.clone(), world.clone(), office.metrics.clone());
        let collector = Collector::new(office.kube.clone(), world.clone(), settings, office.metrics.clone());
        tasks.spawn(writer.run(Arc::clone(&bells.writer), shutdown.clone()).instrument(info_span!("views")));
        let collecting = collector.run(Arc::clone(&bells.collector), shutdown.clone());
        tasks.spawn(collecting.instrument(info_span!("collector")));
        tasks.spawn(renew(office.clone(), world, watches, shutdown.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(%error, "a part of the leader's work has failed");
            office.whole.unmet("a part of the leader's work has failed: see the log");
        }
    }
}

fn watch_all(
    client: &Client,
    world: &Shared<World>,
    bells: &Bells,
    watches: &Health,
    shutdown: &Shutdown,
    tasks: &mut JoinSet<()>,
) {
    let config = || watcher::Config::default().page_size(PAGE);
    let mut start = Start { world, bells, watches, shutdown, tasks };
    let addresses = watcher(Api::<SpiderIPAddress>::all(client.clone()), config());
    start.watch("watch of addresses", reduced(addresses, SlimAddress::from));
    let pods = watcher(Api::<PodObject>::all(client.clone()), config());
    start.watch("watch of pods", reduced(pods, SlimPod::from));
    let endpoints = watcher(Api::<SpiderEndpoint>::all(client.clone()), config());
    start.watch("watch of endpoints", reduced(endpoints, SlimEndpoint::from));
    let nodes = watcher(slim::nodes(client.clone()), config());
    start.watch("watch of nodes", reduced(nodes, SlimNode::from));
    start.watch("watch of pools", watcher(Api::<SpiderIPPool>::all(client.clone()), config()));
}

struct Start<'a> {
    world: &'a Shared<World>,
    bells: &'a Bells,
    watches: &'a Health,
    shutdown: &'a Shutdown,
    tasks: &'a mut JoinSet<()>,
}

impl Start<'_> {
    fn watch<K>(
        &mut self,
        name: &'static str,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    ) where
        K: Send + 'static,
        World: Index<K>,
    {
        let synced = self.watches.condition(name, Scope::Startup);
        let bells = self.bells.clone();
        let following =
            follow(events, self.world.clone(), synced, self.shutdown.clone(), move || bells.ring());
        self.tasks.spawn(following.instrument(info_span!("watch", name)));
    }
}

/// Keeps gauges and readiness up to date.
async fn renew(office: Office, world: Shared<World>, watches: Health, shutdown: Shutdown) {
    loop {
        match watches.ready() {
            Ok(()) => office.caches.met(),
            Err(missing) => office.caches.unmet(missing.join(", ")),
        }
        world.read(|world| {
            office.metrics.pools.set(world.pools.len() as i64);
            office.metrics.addresses.set(world.addresses.len() as i64);
            office.metrics.pods.set(world.pods.len() as i64);
        });
        if !shutdown.sleep(RENEW).await {
            return;
        }
    }
}
