//! Endpoints: their pods and the addresses that they list.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ipnet::IpNet;
use spiderpool_core::ipam::Owner;
use spiderpool_core::names::{PodIdentity, PodName, PodUid};

use super::interner::Interner;
use super::slim::SlimEndpoint;

/// What is kept of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownEndpoint {
    uid: PodUid,
    /// The pod's name, if it is not the endpoint's.
    pod: Option<Box<PodName>>,
    is_of_machine: bool,
    /// Whether the pod owns it, so that the garbage collector deletes it with the pod.
    pub(crate) is_owned: bool,
    /// Whether it is being deleted and has our finalizer.
    pub(crate) is_finalizing: bool,
    /// Hashes of NIC and address.
    entries: Box<[u64]>,
}

impl KnownEndpoint {
    fn pod(&self, name: &PodName) -> PodIdentity {
        let name = self.pod.as_deref().unwrap_or(name).clone();
        PodIdentity { name, uid: self.uid.clone() }
    }

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

/// Endpoints by their names.
#[derive(Debug, Default)]
pub(crate) struct EndpointIndex {
    all: HashMap<PodName, KnownEndpoint>,
    /// The names of those that do not have their pods' names.
    names: HashMap<PodIdentity, PodName>,
}

impl EndpointIndex {
    /// The name of a pod's endpoint.
    pub(crate) fn name<'a>(&'a self, pod: &'a PodIdentity) -> &'a PodName {
        self.names.get(pod).unwrap_or(&pod.name)
    }

    /// The endpoint of this pod; not that of another one with its name.
    pub(crate) fn of_pod(&self, pod: &PodIdentity) -> Option<&KnownEndpoint> {
        self.all.get(self.name(pod)).filter(|endpoint| endpoint.uid == pod.uid)
    }

    /// The UID of the pod that has the endpoint of this name.
    pub(crate) fn holder(&self, name: &PodName) -> Option<&PodUid> {
        self.all.get(name).map(|endpoint| &endpoint.uid)
    }

    /// Whether the endpoint that this owner's would have the name of is another one's, and a virtual machine's where this is a
    /// pod's, or the other way round: neither writes over the other.
    pub(crate) fn is_barred(&self, owner: &Owner) -> bool {
        let found = self.all.get(&owner.endpoint_name()).filter(|found| found.uid != owner.pod.uid);
        found.is_some_and(|found| found.is_of_machine != owner.virtual_machine.is_some())
    }

    /// The pods that have one.
    pub(crate) fn pods(&self) -> impl Iterator<Item = PodIdentity> + '_ {
        self.all.iter().map(|(name, endpoint)| endpoint.pod(name))
    }

    /// Adds or replaces an endpoint; returns its pod. One that names none is not kept: then the pod that it named before.
    pub(super) fn insert(&mut self, endpoint: &SlimEndpoint, interner: &mut Interner) -> Option<PodIdentity> {
        let name = endpoint.name.clone()?;
        let before = self.remove(&name);
        let Some(uid) = endpoint.uid.clone() else { return before };
        let pod = PodIdentity { name: endpoint.pod.clone().unwrap_or_else(|| name.clone()), uid };
        let pod = interner.share_identity(&pod);
        let known = KnownEndpoint {
            uid: pod.uid.clone(),
            pod: endpoint.pod.is_some().then(|| Box::new(pod.name.clone())),
            is_of_machine: endpoint.is_of_machine,
            is_owned: endpoint.is_owned,
            is_finalizing: endpoint.is_finalizing,
            entries: endpoint.entries.iter().map(|(interface, net)| hash(interface, *net)).collect(),
        };
        if endpoint.pod.is_some() {
            self.names.insert(pod.clone(), name.clone());
            self.all.insert(name, known);
        } else {
            self.all.insert(pod.name.clone(), known);
        }
        Some(pod)
    }

    /// Removes the endpoint of this name; returns its pod.
    pub(super) fn remove(&mut self, name: &PodName) -> Option<PodIdentity> {
        let known = self.all.remove(name)?;
        let pod = known.pod(name);
        self.names.remove(&pod);
        Some(pod)
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.names.clear();
    }
}

fn hash(interface: &str, net: IpNet) -> u64 {
    let mut hasher = DefaultHasher::new();
    (interface, net).hash(&mut hasher);
    hasher.finish()
}
