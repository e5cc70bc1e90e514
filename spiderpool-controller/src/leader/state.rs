//! What the leader knows of the cluster: addresses, pods, nodes, endpoints and pools, fed by its watches, each object
//! reduced to a few dozen bytes. One lock guards them all, so that joins see one moment.
//!
//! **Invariant:** nothing is freed by this alone: before a [`PodAction`] is carried out, the API server is asked.

mod addresses;
mod endpoints;
mod evaluate;
mod interner;
mod nodes;
mod pods;
mod pools;
pub mod slim;

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use spiderpool_core::names::PodIdentity;
use spiderpool_runtime::pools::PoolIndex;

pub use addresses::AddressIndex;
pub use endpoints::EndpointIndex;
pub use evaluate::{ObservedPod, PodAction, Policy};
pub use interner::Interner;
pub use nodes::NodeIndex;
pub use pods::PodIndex;
pub use pools::{LeaderFields, LeaderPool, StatusDigest};
pub use slim::{SlimAddress, SlimEndpoint, SlimNode, SlimPod};

/// Keys of what has changed since [`ClusterState::take_changes`].
#[derive(Debug, Default)]
pub struct Changes {
    /// Pods that have addresses or an endpoint.
    pub pods: HashSet<PodIdentity>,
    /// Pools whose status or bitmaps may be outdated.
    pub pools: HashSet<Arc<str>>,
}

/// All indexes.
#[derive(Debug, Default)]
pub struct ClusterState {
    interner: Interner,
    /// Addresses in use.
    pub addresses: AddressIndex,
    /// All pods.
    pub pods: PodIndex,
    /// All nodes.
    pub nodes: NodeIndex,
    /// All endpoints.
    pub endpoints: EndpointIndex,
    /// All pools.
    pub pools: PoolIndex<LeaderFields>,
    changes: Changes,
}

impl ClusterState {
    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        mem::take(&mut self.changes)
    }

    /// Marks every pod with addresses or an endpoint, and every pool.
    pub fn mark_all_changed(&mut self) {
        let owners = self.addresses.owners().cloned();
        self.changes.pods.extend(owners.chain(self.endpoints.pods()));
        let pools = self.pools.names().cloned().map(Into::into);
        self.changes.pools.extend(pools.chain(self.addresses.pools()));
    }

    /// Marks the pod if it has addresses or an endpoint.
    fn mark_pod_changed(&mut self, pod: PodIdentity) {
        let has_endpoint = self.endpoints.of(&pod).is_some();
        if has_endpoint || self.addresses.owner(&pod).is_some() {
            self.changes.pods.insert(pod);
        }
    }
}
