//! The leader's watches: which kinds it follows, and what is kept of their objects.

use std::sync::Arc;

use futures::Stream;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use spiderpool_api::crd::{SpiderCoordinator, SpiderEndpoint, SpiderIPAddress};
use spiderpool_api::labels;
use spiderpool_api::node::nodes;
use spiderpool_api::pod::PodObject;
use spiderpool_api::stateful_set::all_stateful_sets;
use spiderpool_runtime::health::{Health, Scope};
use spiderpool_runtime::pools::PoolObject;
use spiderpool_runtime::watch::{Index, Shared, follow, reduced};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use super::state::{ClusterState, SlimAddress, SlimEndpoint, SlimLease, SlimNode, SlimPod, SlimStatefulSet};

/// Objects of a page of the first list: so many are decoded at a time.
const PAGE: u32 = 200;

/// What depends on the installation.
pub(super) struct Followed<'a> {
    /// Where the agents' Leases are.
    pub(super) namespace: &'a str,
    /// Whether the pods of StatefulSets keep their addresses.
    pub(super) stateful_sets: bool,
}

/// Spawns a task per watch, each of which notifies `changed`. The startup conditions of `health` are met when all
/// have listed.
pub(super) fn spawn_all(
    client: &Client,
    followed: &Followed<'_>,
    state: &Shared<ClusterState>,
    changed: &Arc<Notify>,
    health: &Health,
    shutdown: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let config = || watcher::Config::default().page_size(PAGE);
    let mut spawner = Spawner { state, changed, health, shutdown, tasks };
    let addresses = watcher(Api::<SpiderIPAddress>::all(client.clone()), config());
    spawner.spawn("watch of addresses", reduced(addresses, SlimAddress::from));
    let pods = watcher(Api::<PodObject>::all(client.clone()), config());
    spawner.spawn("watch of pods", reduced(pods, SlimPod::from));
    let endpoints = watcher(Api::<SpiderEndpoint>::all(client.clone()), config());
    spawner.spawn("watch of endpoints", reduced(endpoints, SlimEndpoint::from));
    let of_nodes = watcher(nodes(client.clone()), config());
    spawner.spawn("watch of nodes", reduced(of_nodes, SlimNode::from));
    if followed.stateful_sets {
        let sets = watcher(all_stateful_sets(client.clone()), config());
        spawner.spawn("watch of StatefulSets", reduced(sets, SlimStatefulSet::from));
    }
    let leases = Api::<Lease>::namespaced(client.clone(), followed.namespace);
    let leases = watcher(leases, config().labels(labels::NODE));
    spawner.spawn("watch of the agents' Leases", reduced(leases, SlimLease::from));
    let coordinators = watcher(Api::<SpiderCoordinator>::all(client.clone()), config());
    spawner.spawn("watch of coordinators", coordinators);
    spawner.spawn("watch of pools", watcher(Api::<PoolObject>::all(client.clone()), config()));
}

struct Spawner<'a> {
    state: &'a Shared<ClusterState>,
    changed: &'a Arc<Notify>,
    health: &'a Health,
    shutdown: &'a CancellationToken,
    tasks: &'a mut JoinSet<()>,
}

impl Spawner<'_> {
    fn spawn<K>(
        &mut self,
        name: &'static str,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    ) where
        K: Send + 'static,
        ClusterState: Index<K>,
    {
        let synced = self.health.condition(name, Scope::Startup);
        let changed = Arc::clone(self.changed);
        let following =
            follow(events, self.state.clone(), synced, self.shutdown.clone(), move || changed.notify_one());
        self.tasks.spawn(following.instrument(info_span!("watch", name)));
    }
}
