//! Endpoints: their pods and the addresses that they list.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ipnet::IpNet;
use spiderpool_core::names::{PodIdentity, PodName, PodUid};

use super::interner::Interner;
use super::slim::SlimEndpoint;

/// What is kept of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownEndpoint {
    uid: PodUid,
    /// Whether the pod owns it, so that the garbage collector deletes it with the pod.
    pub(crate) is_owned: bool,
    /// Whether it is being deleted and has our finalizer.
    pub(crate) is_finalizing: bool,
    /// Hashes of NIC and address.
    entries: Box<[u64]>,
}

impl KnownEndpoint {
    /// Whether it lists this address of this NIC.
    pub(crate) fn lists(&self, interface: &str, net: IpNet) -> bool {
        self.entries.contains(&hash(interface, net))
    }

    /// Whether it lists an address that is not among these.
    pub(crate) fn lists_more_than<'a>(&self, known: impl Iterator<Item = (&'a str, IpNet)>) -> bool {
        let known: Vec<u64> = known.map(|(interface, net)| hash(interface, net)).collect();
        self.entries.iter().any(|entry| !known.contains(entry))
    }
}

/// Endpoints by their pods' names.
#[derive(Debug, Default)]
pub(crate) struct EndpointIndex(HashMap<PodName, KnownEndpoint>);

impl EndpointIndex {
    /// The endpoint of this pod; not that of another one with its name.
    pub(crate) fn of_pod(&self, pod: &PodIdentity) -> Option<&KnownEndpoint> {
        self.0.get(&pod.name).filter(|endpoint| endpoint.uid == pod.uid)
    }

    /// The pods that have one.
    pub(crate) fn pods(&self) -> impl Iterator<Item = PodIdentity> + '_ {
        self.0.iter().map(|(name, endpoint)| PodIdentity { name: name.clone(), uid: endpoint.uid.clone() })
    }

    /// Adds or replaces an endpoint; returns its pod. One that names none is not kept: then the pod that it named before.
    pub(super) fn insert(&mut self, endpoint: &SlimEndpoint, interner: &mut Interner) -> Option<PodIdentity> {
        let name = endpoint.name.clone()?;
        let Some(uid) = endpoint.uid.clone() else { return self.remove(&name) };
        let pod = interner.share_identity(&PodIdentity { name, uid });
        let known = KnownEndpoint {
            uid: pod.uid.clone(),
            is_owned: endpoint.is_owned,
            is_finalizing: endpoint.is_finalizing,
            entries: endpoint.entries.iter().map(|(interface, net)| hash(interface, *net)).collect(),
        };
        self.0.insert(pod.name.clone(), known);
        Some(pod)
    }

    /// Removes the endpoint of this name; returns its pod.
    pub(super) fn remove(&mut self, name: &PodName) -> Option<PodIdentity> {
        let (name, known) = self.0.remove_entry(name)?;
        Some(PodIdentity { name, uid: known.uid })
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn hash(interface: &str, net: IpNet) -> u64 {
    let mut hasher = DefaultHasher::new();
    (interface, net).hash(&mut hasher);
    hasher.finish()
}
