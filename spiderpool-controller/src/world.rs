//! What the leader knows of the cluster, fed by its watches: addresses, pods, nodes, endpoints and pools, each reduced
//! to a few dozen bytes. It is one structure, so that what is joined is of one moment.
//!
//! **Invariant:** nothing is freed by this alone: who acts on a [`Verdict`] asks the API server first.

mod addresses;
mod endpoints;
mod judge;
mod names;
mod nodes;
mod pods;
mod pools;
pub mod slim;

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

pub use addresses::{Address, AddressIndex, Holder};
pub use endpoints::EndpointIndex;
pub use judge::{Cause, Clock, Standing, Verdict};
pub use names::Names;
pub use nodes::NodeIndex;
pub use pods::PodIndex;
pub use pools::{KnownPool, PoolIndex, ViewPrint};
pub use slim::{SlimAddress, SlimEndpoint, SlimNode, SlimPod};

/// A pod by its name and UID: a name may be another pod's later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its UID as the runtime knows it.
    pub uid: Arc<str>,
}

impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What has changed since it was last asked.
#[derive(Debug, Default)]
pub struct Changes {
    /// Pods that are to be judged.
    pub pods: HashSet<PodId>,
    /// Pools whose view may be old.
    pub pools: HashSet<Arc<str>>,
}

/// All indexes.
#[derive(Debug, Default)]
pub struct World {
    names: Names,
    /// Addresses in use.
    pub addresses: AddressIndex,
    /// All pods.
    pub pods: PodIndex,
    /// All nodes.
    pub nodes: NodeIndex,
    /// All endpoints.
    pub endpoints: EndpointIndex,
    /// All pools.
    pub pools: PoolIndex,
    changes: Changes,
}

impl World {
    /// What has changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        mem::take(&mut self.changes)
    }

    /// The pools among it.
    pub fn take_pools(&mut self) -> HashSet<Arc<str>> {
        mem::take(&mut self.changes.pools)
    }

    /// The pods among it.
    pub fn take_pods(&mut self) -> HashSet<PodId> {
        mem::take(&mut self.changes.pods)
    }

    /// Has every pod that holds something, every endpoint and every pool looked at.
    pub fn suspect_all(&mut self) {
        let holders = self.addresses.holders().map(|(id, _)| id.clone());
        self.changes.pods.extend(holders.chain(self.endpoints.pods()));
        self.changes.pools.extend(self.pools.names().chain(self.addresses.pools()));
    }

    /// The pod holds something or has an endpoint.
    fn suspect(&mut self, id: PodId) {
        let has_endpoint = self.endpoints.of(&id).is_some();
        if has_endpoint || self.addresses.holder(&id).is_some() {
            self.changes.pods.insert(id);
        }
    }
}
