//! Address management: one SpiderIPAddress per address, created by ADD, deleted by DEL.
//!
//! What is decided is in `spiderpool_core::ipam`; here are the requests and what the agent remembers between them.
//! **Invariant:** a request that may have taken an address is never forgotten: it is finished although the caller
//! has gone, and one whose outcome is unknown is settled before the pod gets another address.

mod addresses;
mod allocate;
mod caller;
mod endpoints;
mod error;
mod find;
mod held;
mod metrics;
mod object;
mod owner;
mod record;
mod release;
mod restart;
mod stock;
mod sweep;
mod turns;
mod unsettled;
mod view;
mod wanted;

use std::sync::Arc;

use kube::Api;
use spiderpool_api::pod::PodObject;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::candidates::AutoPool;
use spiderpool_core::names::NodeName;
use spiderpool_runtime::kubernetes::{Failure, Kubernetes};
use tokio::sync::Notify;

use crate::start::Start;
use crate::watches::{NamespaceIndex, Pod, PodIndex, PoolIndex, PoolSpecs, ReservedIndex, Shared};
use addresses::Addresses;
use held::HeldIndex;
use owner::Owners;
use turns::Turns;

pub use caller::{Caller, Presence};
pub use endpoints::Endpoints;
pub use error::{AllocateError, PodError, ReleaseError};
pub use metrics::IpamMetrics;
use stock::Stock;

/// What is configured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The agent's node.
    pub node: NodeName,
    /// The families that pods get.
    pub families: Vec<Family>,
    /// Whether subnet annotations are served.
    pub auto_pool: AutoPool,
    /// Whether the pods of StatefulSets keep their addresses.
    pub stateful_set: bool,
    /// Whether addresses are released because of a conflict.
    pub release_conflicts: bool,
    /// Whether the kernel probes for other owners of a pod's IPv6 addresses.
    pub duplicate_address_detection: bool,
}

/// What the watches know.
#[derive(Debug, Clone, Default)]
pub struct Indexes {
    /// The node's pods.
    pub pods: Shared<PodIndex>,
    /// All pools.
    pub pools: Shared<PoolIndex>,
    /// Reserved addresses.
    pub reserved: Shared<ReservedIndex>,
    /// Annotations of namespaces.
    pub namespaces: Shared<NamespaceIndex>,
}

/// Allocates and releases.
pub struct Ipam {
    settings: Settings,
    kube: Kubernetes,
    indexes: Indexes,
    pool_specs: PoolSpecs,
    stock: Stock,
    owners: Owners,
    endpoints: Arc<Endpoints>,
    pods: Turns<(String, String)>,
    start: Start,
    wake: Notify,
    metrics: IpamMetrics,
}

impl Ipam {
    /// Serves nothing before `start` is done.
    pub fn new(
        settings: Settings,
        kube: Kubernetes,
        indexes: Indexes,
        metrics: IpamMetrics,
        start: Start,
    ) -> Arc<Self> {
        let held = Shared::<HeldIndex>::default();
        Arc::new(Self {
            stock: Stock::new(
                Addresses::new(kube.clone()),
                held.clone(),
                indexes.reserved.clone(),
                settings.node.to_string(),
                metrics.collisions.clone(),
            ),
            endpoints: Arc::new(Endpoints::new(kube.clone(), held)),
            owners: Owners::new(kube.clone()),
            pool_specs: PoolSpecs::new(kube.clone(), indexes.pools.clone()),
            pods: Turns::default(),
            start,
            wake: Notify::new(),
            settings,
            kube,
            indexes,
            metrics,
        })
    }

    /// The pod as the API server has it now.
    async fn read_pod(&self, namespace: &str, name: &str) -> Result<Option<Arc<Pod>>, Failure> {
        let api = Api::<PodObject>::namespaced(self.kube.client(), namespace);
        let pod = self.kube.read(api.get_opt(name)).await?;
        Ok(pod.map(|pod| Arc::new(Pod::from(pod))))
    }

    /// The pod as the watch knows it, else as the API server does.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, PodError> {
        if let Some(pod) = self.indexes.pods.read(|pods| pods.get(namespace, name)) {
            return Ok(pod);
        }
        self.read_pod(namespace, name).await.map_err(PodError::Unread)?.ok_or(PodError::Missing)
    }

    /// The specs of pools.
    pub fn pool_specs(&self) -> &PoolSpecs {
        &self.pool_specs
    }

    /// The endpoints' queue.
    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }
}
