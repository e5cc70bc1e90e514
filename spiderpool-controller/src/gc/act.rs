//! Acts on a verdict, after a look at the API server.

use std::net::IpAddr;

use kube::Api;
use spiderpool_api::crd::{AddressState, SpiderIPAddress};
use spiderpool_api::endpoint::{self, Record};
use spiderpool_api::pod::{Pod, PodObject};
use spiderpool_core::ipam::PodAnnotations;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::alive::Stage;
use spiderpool_core::names::PoolName;
use spiderpool_runtime::endpoints::EndpointStore;
use spiderpool_runtime::kubernetes::{Deletion, Exactly, Failure, Kubernetes};
use spiderpool_runtime::watch::Shared;
use thiserror::Error;
use tracing::{debug, info, warn};

use super::Settings;
use crate::metrics::Metrics;
use crate::world::{Cause, PodId, SlimNode, Standing, Verdict, World, slim};

/// Why something is not freed or written now.
#[derive(Debug, Error)]
pub(super) enum ActError {
    /// The pod cannot be read, so nobody knows whether it is alive.
    #[error("failed to get Pod {pod}: {source}")]
    ReadPod {
        /// namespace/name.
        pod: String,
        /// Why.
        source: Failure,
    },
    /// The node cannot be read, so nobody knows whether it answers.
    #[error("failed to get Node {node}: {source}")]
    ReadNode {
        /// Its name.
        node: String,
        /// Why.
        source: Failure,
    },
    /// The endpoint cannot be written or removed.
    #[error("SpiderEndpoint {pod}: {source}")]
    Endpoint {
        /// namespace/name.
        pod: String,
        /// Why.
        source: Failure,
    },
    /// An address cannot be freed.
    #[error("failed to free {address} of Pod {pod}: {source}")]
    Address {
        /// The address.
        address: IpAddr,
        /// namespace/name.
        pod: String,
        /// Why.
        source: Failure,
    },
    /// An address was written by somebody else at the same time.
    #[error("{address} of Pod {pod} has just changed")]
    Changed {
        /// The address.
        address: IpAddr,
        /// namespace/name.
        pod: String,
    },
}

/// What acting needs. Cheap to clone.
#[derive(Clone)]
pub(super) struct Actor {
    pub(super) kube: Kubernetes,
    pub(super) world: Shared<World>,
    pub(super) settings: Settings,
    pub(super) metrics: Metrics,
}

impl Actor {
    /// Does what the indexes and then the API server say about the pod.
    pub(super) async fn act(&self, id: &PodId) -> Result<(), ActError> {
        match self.world.read(|world| world.judge(id, self.settings.clock())) {
            Verdict::Free(_) if self.settings.enabled => self.free(id).await,
            Verdict::WriteEndpoint => self.write_endpoint(id).await,
            _ => Ok(()),
        }
    }

    async fn read_pod(&self, id: &PodId) -> Result<Option<Pod>, ActError> {
        let api = Api::<PodObject>::namespaced(self.kube.client(), &id.namespace);
        let found = self.kube.read(api.get_opt(&id.name)).await;
        let found = found.map_err(|source| ActError::ReadPod { pod: id.to_string(), source })?;
        Ok(found.map(Pod::from))
    }

    /// Asked live: a node that has just come back may still run what is overdue or gone.
    async fn node_is_ready(&self, name: &str) -> Result<bool, ActError> {
        let found = self.kube.read(slim::nodes(self.kube.client()).get_opt(name)).await;
        let found = found.map_err(|source| ActError::ReadNode { node: name.to_owned(), source })?;
        Ok(found.map(SlimNode::from).is_some_and(|node| node.is_ready()))
    }

    async fn free(&self, id: &PodId) -> Result<(), ActError> {
        let found = self.read_pod(id).await?;
        let node_is_ready = match self.world.read(|world| world.node(id)) {
            Some(node) => self.node_is_ready(&node).await?,
            None => false,
        };
        let standing = found.as_ref().map(|pod| Standing {
            uid: &pod.uid,
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion,
        });
        let (verdict, addresses) = self.world.read(|world| {
            let verdict = world.judge_pod(id, standing, node_is_ready, self.settings.clock());
            (verdict, world.addresses.bound(id))
        });
        let Verdict::Free(cause) = verdict else {
            debug!(pod = %id, uid = %id.uid, ?verdict, "the API server knows better than the watches");
            return Ok(());
        };
        // While there is an endpoint there are addresses: what is left is found again.
        let store = EndpointStore::new(self.kube.clone());
        let removed = store.remove(&id.namespace, &id.name, &id.uid).await;
        removed.map_err(|source| ActError::Endpoint { pod: id.to_string(), source })?;
        for address in addresses {
            self.free_address(id, address, cause).await?;
        }
        Ok(())
    }

    async fn free_address(&self, id: &PodId, address: IpAddr, cause: Cause) -> Result<(), ActError> {
        let failed = |source| ActError::Address { address, pod: id.to_string(), source };
        let api = Api::<SpiderIPAddress>::all(self.kube.client());
        let found = self.kube.read(api.get_opt(&object_name(address))).await.map_err(failed)?;
        let is_its = |found: &SpiderIPAddress| {
            found.spec.pod_uid == *id.uid && found.spec.state == AddressState::Bound
        };
        let Some(found) = found.filter(is_its) else { return Ok(()) };
        match self.kube.delete(&api, &Exactly::of(&found.metadata)).await.map_err(failed)? {
            Deletion::Done => {
                self.metrics.freed(cause);
                info!(%address, pool = found.spec.pool, pod = %id, uid = %id.uid, cause = cause.as_str(), "freed");
                Ok(())
            }
            Deletion::Changed => Err(ActError::Changed { address, pod: id.to_string() }),
        }
    }

    async fn write_endpoint(&self, id: &PodId) -> Result<(), ActError> {
        let is_it = |pod: &Pod| pod.uid == *id.uid && pod.stage == Stage::Alive;
        let Some(pod) = self.read_pod(id).await?.filter(is_it) else { return Ok(()) };
        let annotations = match PodAnnotations::parse(&pod.annotations) {
            Ok(annotations) => annotations,
            Err(error) => {
                warn!(pod = %id, %error, "the endpoint is written without what the annotations ask for");
                PodAnnotations::default()
            }
        };
        let record = self.world.read(|world| {
            let holder = world.addresses.holder(id)?;
            let find = |name: &PoolName| world.pools.get(name.as_str())?.pool.clone().ok();
            let ips = endpoint::restore(world.addresses.held(id), &annotations, find);
            let top = if holder.owner_kind.is_empty() {
                ("Pod", &*id.name)
            } else {
                (&*holder.owner_kind, &*holder.owner_name)
            };
            Some(Record::new(&pod, top, ips))
        });
        let Some(record) = record else { return Ok(()) };
        let written = EndpointStore::new(self.kube.clone()).write(&record).await;
        written.map_err(|source| ActError::Endpoint { pod: id.to_string(), source })?;
        self.metrics.endpoints_written.inc();
        info!(pod = %id, uid = %id.uid, "endpoint written that its agent did not write");
        Ok(())
    }
}
