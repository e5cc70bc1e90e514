//! Endpoints: their pods and the addresses that they list.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ipnet::IpNet;
use spiderpool_core::names::{PodIdentity, PodName, PodUid};
use spiderpool_runtime::watch::Index;

use super::ClusterState;
use super::slim::SlimEndpoint;

/// What is kept of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEndpoint {
    uid: PodUid,
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
pub struct EndpointIndex(HashMap<PodName, KnownEndpoint>);

impl EndpointIndex {
    /// The endpoint of this pod; not that of another one with its name.
    pub fn of(&self, pod: &PodIdentity) -> Option<&KnownEndpoint> {
        self.0.get(&pod.name).filter(|endpoint| endpoint.uid == pod.uid)
    }

    /// The pods that have one.
    pub fn pods(&self) -> impl Iterator<Item = PodIdentity> + '_ {
        self.0.iter().map(|(name, endpoint)| PodIdentity { name: name.clone(), uid: endpoint.uid.clone() })
    }
}

fn hash(interface: &str, net: IpNet) -> u64 {
    let mut hasher = DefaultHasher::new();
    (interface, net).hash(&mut hasher);
    hasher.finish()
}

impl ClusterState {
    fn insert_endpoint(&mut self, endpoint: &SlimEndpoint) -> Option<PodIdentity> {
        let pod = endpoint.pod.as_ref()?;
        let interner = &mut self.interner;
        let name = PodName::new(interner.intern(pod.name.namespace()), interner.intern(pod.name.name()));
        let name = name.unwrap_or_else(|_| pod.name.clone());
        let pod = PodIdentity { name, uid: interner.share(pod.uid.clone()) };
        let known = KnownEndpoint {
            uid: pod.uid.clone(),
            is_owned: endpoint.is_owned,
            entries: endpoint.entries.iter().map(|(interface, net)| hash(interface, *net)).collect(),
        };
        self.endpoints.0.insert(pod.name.clone(), known);
        Some(pod)
    }
}

impl Index<SlimEndpoint> for ClusterState {
    fn apply(&mut self, endpoint: SlimEndpoint) {
        if let Some(pod) = self.insert_endpoint(&endpoint) {
            self.mark_pod_changed(pod);
        }
    }

    fn delete(&mut self, endpoint: &SlimEndpoint) {
        let Some(pod) = &endpoint.pod else { return };
        if let Some(known) = self.endpoints.0.remove(&pod.name) {
            self.mark_pod_changed(PodIdentity { name: pod.name.clone(), uid: known.uid });
        }
    }

    fn reset(&mut self, endpoints: Vec<SlimEndpoint>) {
        self.endpoints.0.clear();
        for endpoint in &endpoints {
            self.insert_endpoint(endpoint);
        }
        self.mark_all_changed();
    }
}
