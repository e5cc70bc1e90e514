//! The parts of address management, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::KeptWorkloads;
use spiderpool_core::names::{NodeName, PodName, PodUid, PoolName};
use spiderpool_runtime::kubernetes::Kubernetes;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::adds_in_progress::AddsInProgress;
use super::allocator::{AddressAllocator, HoldingIndex};
use super::auto_pools::AutoPools;
use super::endpoint_queue::EndpointQueue;
use super::error::PodError;
use super::keyed_mutex::KeyedMutex;
use super::metrics::IpamMetrics;
use super::pod_events::PodEvents;
use super::pods::Pods;
use super::predecessors::Predecessors;
use super::release::Releaser;
use super::resolve::PoolResolver;
use super::respond::{Detection, Responder};
use super::successors::Successors;
use super::surroundings::Surroundings;
use super::sweep::Sweeper;
use super::workloads::Workloads;
use crate::announce::Announcement;
use crate::node_events::NodeEvents;
use crate::start::Start;
use crate::watches::{
    LocalPodIndex, NamespaceIndex, OwnNodeIndex, Pod, PoolIndex, PoolSpecs, ReservedIndex, Shared,
};

/// What is configured.
#[derive(Debug, Clone)]
pub struct IpamSettings {
    /// The agent's node.
    pub node: NodeName,
    /// The families that pods get.
    pub families: Vec<Family>,
    /// The agent's namespace, where networks without one are.
    pub namespace: String,
    /// The network of first NICs, `NAMESPACE/NAME`; empty if Multus has none.
    pub cluster_network: String,
    /// Whether subnet annotations are served: there are SpiderSubnets, and pools are made of them for workloads.
    pub auto_pools: bool,
    /// Which workloads' pods leave their addresses to the next one.
    pub kept_workloads: KeptWorkloads,
    /// Whether addresses are released because of a conflict.
    pub release_conflicts: bool,
    /// Whether the kernel probes for other owners of a pod's IPv6 addresses.
    pub duplicate_address_detection: bool,
    /// What the plugin probes for before a pod uses its addresses.
    pub detection: Detection,
    /// How long nobody gets an address that somebody else was seen using.
    pub quarantine_time: Duration,
    /// The folder for what the next agent is to know.
    pub state_dir: PathBuf,
}

/// What the watches know.
#[derive(Debug, Clone, Default)]
pub struct Indexes {
    /// The node's pods.
    pub pods: Shared<LocalPodIndex>,
    /// All pools.
    pub pools: Shared<PoolIndex>,
    /// Reserved addresses.
    pub reserved: Shared<ReservedIndex>,
    /// Labels and annotations of namespaces.
    pub namespaces: Shared<NamespaceIndex>,
    /// The agent's own Node.
    pub own_node: Shared<OwnNodeIndex>,
}

/// Serves the plugins' requests. Each request of a pod waits for the earlier ones of the pod.
pub struct Ipam {
    pub(super) node: NodeName,
    pub(super) release_conflicts: bool,
    pub(super) quarantine_time: Duration,
    pub(super) start: Start,
    /// When this agent was started, by its node's clock.
    pub(super) started: Timestamp,
    pub(super) metrics: IpamMetrics,
    pub(super) adds: AddsInProgress,
    pub(super) pod_locks: KeyedMutex<PodName>,
    pub(super) pods: Pods,
    pub(super) pod_events: Arc<PodEvents>,
    pub(super) pool_specs: PoolSpecs,
    pub(super) workloads: Arc<Workloads>,
    pub(super) resolver: PoolResolver,
    pub(super) allocator: Arc<AddressAllocator>,
    pub(super) responder: Responder,
    pub(super) predecessors: Predecessors,
    pub(super) releaser: Arc<Releaser>,
    pub(super) sweeper: Sweeper,
    pub(super) endpoints: Arc<EndpointQueue>,
}

impl Ipam {
    /// Serves nothing before `start` is done.
    pub fn new(
        settings: IpamSettings,
        kube: Kubernetes,
        indexes: Indexes,
        metrics: IpamMetrics,
        node_events: NodeEvents,
        start: Start,
    ) -> Arc<Self> {
        let IpamSettings {
            node,
            families,
            namespace,
            cluster_network,
            auto_pools,
            kept_workloads,
            release_conflicts,
            duplicate_address_detection,
            detection,
            quarantine_time,
            state_dir,
        } = settings;
        let pods = Pods::new(kube.clone(), indexes.pods);
        let pools = indexes.pools;
        let pool_specs = PoolSpecs::new(kube.clone(), pools.clone());
        let workloads = Arc::new(Workloads::new(kube.clone()));
        let allocator = Arc::new(AddressAllocator::new(
            kube.clone(),
            indexes.reserved,
            node.clone(),
            &state_dir,
            metrics.picks.clone(),
        ));
        let pod_events = Arc::new(PodEvents::new(&kube, &node));
        let surroundings = Surroundings {
            kube: kube.clone(),
            node: node.clone(),
            own_node: indexes.own_node,
            namespaces: indexes.namespaces,
        };
        let auto_pools = auto_pools.then(|| AutoPools {
            kube: kube.clone(),
            families: families.clone(),
            pools: pools.clone(),
        });
        let successors = Successors::new(kube.clone(), kept_workloads);
        let (rewinds, endpoint_holdings) = (kube.rewinds(), allocator.holdings().clone());
        let endpoints =
            Arc::new(EndpointQueue::new(kube.clone(), endpoint_holdings, allocator.creations().clone()));
        let releaser = Arc::new(Releaser {
            pods: pods.clone(),
            allocator: Arc::clone(&allocator),
            endpoints: Arc::clone(&endpoints),
            successors,
        });
        let predecessors =
            Predecessors { kube, endpoints: Arc::clone(&endpoints), allocator: Arc::clone(&allocator) };
        let pod_locks = KeyedMutex::default();
        Arc::new(Self {
            resolver: PoolResolver {
                node: node.clone(),
                families,
                namespace,
                cluster_network,
                auto_pools,
                pools: pools.clone(),
                pool_specs: pool_specs.clone(),
                surroundings,
            },
            responder: Responder {
                pool_specs: pool_specs.clone(),
                endpoints: Arc::clone(&endpoints),
                duplicate_address_detection,
                detection,
            },
            sweeper: Sweeper {
                pods: pods.clone(),
                pools,
                pool_specs: pool_specs.clone(),
                workloads: Arc::clone(&workloads),
                allocator: Arc::clone(&allocator),
                releaser: Arc::clone(&releaser),
                endpoints: Arc::clone(&endpoints),
                pod_locks: pod_locks.clone(),
                metrics: metrics.clone(),
                events: node_events,
                pod_events: Arc::clone(&pod_events),
                rewinds,
                changed: Notify::new(),
                has_overdue: watch::Sender::default(),
            },
            node,
            release_conflicts,
            quarantine_time,
            start,
            started: Timestamp::now(),
            metrics,
            adds: AddsInProgress::default(),
            pod_locks,
            pods,
            pod_events,
            pool_specs,
            workloads,
            allocator,
            predecessors,
            releaser,
            endpoints,
        })
    }

    /// The pod as the watch knows it, else as the API server does.
    pub async fn pod(&self, name: &PodName) -> Result<Arc<Pod>, PodError> {
        self.pods.find(name).await
    }

    /// Neighbors are told of a pod's addresses when its virtual machine has moved to it.
    pub(crate) fn announce_later(&self, pod: Option<&PodUid>, announcement: Announcement) {
        if let Some(pod) = pod {
            self.allocator.announce_later(pod, announcement);
        }
    }

    /// The name of the endpoint that says what a pod has.
    pub fn endpoint_name(&self, pod: &PodName) -> PodName {
        let owners = self.allocator.holdings().read(HoldingIndex::owners);
        let owner = owners.iter().find(|owner| owner.pod.name == *pod && owner.virtual_machine.is_some());
        owner.map_or_else(|| pod.clone(), |owner| owner.endpoint_name())
    }

    /// The pools of the addresses that a pod holds.
    pub fn pools_of_addresses(&self, pod: &PodUid) -> BTreeMap<IpAddr, PoolName> {
        let held = self.allocator.holdings().read(|index| index.of_pod(pod));
        held.iter().map(|object| (object.holding.ip(), object.holding.pool.clone())).collect()
    }

    /// The node's pods that hold addresses, or may do so by a request whose outcome is not known.
    pub(crate) fn pods_with_addresses(&self) -> BTreeSet<PodUid> {
        self.allocator.owners().iter().map(|owner| owner.pod.uid.clone()).collect()
    }

    /// Whether pods that should have ended have processes, as that changes.
    pub(crate) fn has_overdue_pods(&self) -> watch::Receiver<bool> {
        self.sweeper.has_overdue.subscribe()
    }

    /// The specs of pools.
    pub fn pool_specs(&self) -> &PoolSpecs {
        &self.pool_specs
    }

    /// The endpoints that are to be written.
    pub fn endpoints(&self) -> &Arc<EndpointQueue> {
        &self.endpoints
    }

    /// A pod of the node has changed or gone.
    pub fn pods_changed(&self) {
        self.sweeper.wake();
    }

    /// Reads what the node's pods hold, as often as it takes.
    pub async fn load(&self, shutdown: &CancellationToken) {
        self.sweeper.load(shutdown).await;
    }

    /// Frees, until shutdown, what belongs to pods that are gone. Wants [`Ipam::load`] and synced watches.
    pub async fn sweep(&self, shutdown: &CancellationToken) {
        self.sweeper.run(shutdown).await;
    }
}
