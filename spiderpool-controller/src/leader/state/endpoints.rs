//! Endpoints: their pods and the addresses that they list.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ipnet::IpNet;
use spiderpool_runtime::watch::Index;

use super::slim::SlimEndpoint;
use super::{ClusterState, PodId};

/// What is kept of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEndpoint {
    uid: Arc<str>,
    /// Whether the pod owns it, so that the garbage collector deletes it with the pod.
    pub is_owned: bool,
    /// Hashes of NIC and address.
    entries: Box<[u64]>,
}

impl KnownEndpoint {
    /// Whether it lists this address of this NIC.
    pub fn lists(&self, interface: &str, net: IpNet) -> bool {
        self.entries.contains(&hash(interface, net))
    }
}

/// Endpoints by their pods' names.
#[derive(Debug, Default)]
pub struct EndpointIndex(HashMap<(Arc<str>, Arc<str>), KnownEndpoint>);

impl EndpointIndex {
    /// The endpoint of this pod; not that of another one with its name.
    pub fn of(&self, id: &PodId) -> Option<&KnownEndpoint> {
        let key = (Arc::clone(&id.namespace), Arc::clone(&id.name));
        self.0.get(&key).filter(|endpoint| endpoint.uid == id.uid)
    }

    /// The pods that have one.
    pub fn pods(&self) -> impl Iterator<Item = PodId> + '_ {
        self.0.iter().map(|((namespace, name), endpoint)| PodId {
            namespace: Arc::clone(namespace),
            name: Arc::clone(name),
            uid: Arc::clone(&endpoint.uid),
        })
    }
}

fn hash(interface: &str, net: IpNet) -> u64 {
    let mut hasher = DefaultHasher::new();
    (interface, net).hash(&mut hasher);
    hasher.finish()
}

impl ClusterState {
    fn insert_endpoint(&mut self, endpoint: &SlimEndpoint) -> PodId {
        let interner = &mut self.interner;
        let id = PodId {
            namespace: interner.intern(&endpoint.namespace),
            name: interner.intern(&endpoint.name),
            uid: interner.intern(&endpoint.uid),
        };
        let known = KnownEndpoint {
            uid: Arc::clone(&id.uid),
            is_owned: endpoint.is_owned,
            entries: endpoint.entries.iter().map(|(interface, net)| hash(interface, *net)).collect(),
        };
        self.endpoints.0.insert((Arc::clone(&id.namespace), Arc::clone(&id.name)), known);
        id
    }
}

impl Index<SlimEndpoint> for ClusterState {
    fn apply(&mut self, endpoint: SlimEndpoint) {
        let id = self.insert_endpoint(&endpoint);
        self.mark_pod_changed(id);
    }

    fn delete(&mut self, endpoint: &SlimEndpoint) {
        let interner = &mut self.interner;
        let key = (interner.intern(&endpoint.namespace), interner.intern(&endpoint.name));
        if let Some(known) = self.endpoints.0.remove(&key) {
            self.mark_pod_changed(PodId { namespace: key.0, name: key.1, uid: known.uid });
        }
    }

    fn reset(&mut self, endpoints: Vec<SlimEndpoint>) {
        self.endpoints.0.clear();
        for endpoint in endpoints {
            self.insert_endpoint(&endpoint);
        }
        self.mark_all_changed();
    }
}
