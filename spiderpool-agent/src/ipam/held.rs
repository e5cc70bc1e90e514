//! The addresses of this node's pods: filled by one list at start, then kept by the agent's own writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use spiderpool_api::crd::SpiderIPAddress;

/// One address in use, as its object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The address with the prefix length of its subnet.
    pub net: IpNet,
    /// The object's name.
    pub name: String,
    /// The object's UID.
    pub uid: String,
    /// The object's resourceVersion.
    pub version: String,
    /// The pool that it is from.
    pub pool: String,
    /// The node that holds it; empty if none.
    pub node: String,
    /// The NIC.
    pub interface: String,
    /// The sandbox.
    pub container_id: String,
    /// The CNI network's name; may be empty.
    pub network: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The kind of the workload above the pod.
    pub owner_kind: String,
}

/// A pod that holds addresses, or may.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether the kubelet runs it from a manifest of its own, and the pod on the API server is a mirror.
    pub is_static: bool,
}

impl Holder {
    /// `owner_kind`: of the workload above the pod; a static pod is its node's.
    pub(crate) fn new(namespace: &str, name: &str, uid: &str, owner_kind: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            is_static: owner_kind == "Node",
        }
    }
}

impl Held {
    /// From the object; `None` if its address does not parse.
    pub(crate) fn from_object(object: &SpiderIPAddress) -> Option<Self> {
        let (meta, spec) = (&object.metadata, &object.spec);
        Some(Self {
            net: spec.address.parse().ok()?,
            name: meta.name.clone()?,
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            pool: spec.pool.clone(),
            node: spec.node.clone().unwrap_or_default(),
            interface: spec.interface.clone(),
            container_id: spec.container_id.clone(),
            network: spec.network.clone(),
            pod_namespace: spec.pod_namespace.clone(),
            pod_name: spec.pod_name.clone(),
            pod_uid: spec.pod_uid.clone(),
            owner_kind: spec.owner_kind.clone(),
        })
    }

    /// The address alone.
    pub(crate) fn ip(&self) -> IpAddr {
        self.net.addr()
    }

    /// The pod.
    pub(crate) fn holder(&self) -> Holder {
        Holder::new(&self.pod_namespace, &self.pod_name, &self.pod_uid, &self.owner_kind)
    }
}

/// Addresses by themselves and by pod.
#[derive(Debug, Default)]
pub(crate) struct HeldIndex {
    by_ip: BTreeMap<IpAddr, Arc<Held>>,
    by_pod: HashMap<String, BTreeSet<IpAddr>>,
}

impl HeldIndex {
    /// The address is held, or what is known of it has changed.
    pub(crate) fn apply(&mut self, held: Held) -> Arc<Held> {
        self.delete(held.ip());
        self.by_pod.entry(held.pod_uid.clone()).or_default().insert(held.ip());
        let held = Arc::new(held);
        self.by_ip.insert(held.ip(), Arc::clone(&held));
        held
    }

    /// The address is free.
    pub(crate) fn delete(&mut self, ip: IpAddr) {
        let Some(held) = self.by_ip.remove(&ip) else { return };
        if let Some(addresses) = self.by_pod.get_mut(&held.pod_uid) {
            addresses.remove(&ip);
            if addresses.is_empty() {
                self.by_pod.remove(&held.pod_uid);
            }
        }
    }

    /// Exactly these are held.
    pub(crate) fn reset(&mut self, all: Vec<Held>) {
        self.by_ip.clear();
        self.by_pod.clear();
        for held in all {
            self.apply(held);
        }
    }

    /// What the pod holds, over all its NICs, lowest address first.
    pub(crate) fn of_pod(&self, uid: &str) -> Vec<Arc<Held>> {
        let addresses = self.by_pod.get(uid).into_iter().flatten();
        addresses.filter_map(|ip| self.by_ip.get(ip).cloned()).collect()
    }

    /// The UIDs under which a pod of this name holds something for this sandbox.
    pub(crate) fn owners(&self, namespace: &str, name: &str, container_id: &str) -> BTreeSet<String> {
        self.by_ip
            .values()
            .filter(|held| held.pod_namespace == namespace && held.pod_name == name)
            .filter(|held| held.container_id == container_id)
            .map(|held| held.pod_uid.clone())
            .collect()
    }

    /// The held addresses of a pool.
    pub(crate) fn of_pool(&self, pool: &str) -> Vec<IpAddr> {
        self.by_ip.values().filter(|held| held.pool == pool).map(|held| held.ip()).collect()
    }

    /// The pods that hold something.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let first = self.by_pod.values().filter_map(BTreeSet::first);
        first.filter_map(|ip| Some(self.by_ip.get(ip)?.holder())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(net: &str, pod_uid: &str, container: &str) -> Held {
        Held {
            net: net.parse().unwrap(),
            name: net.to_owned(),
            uid: "o".into(),
            version: "1".into(),
            pool: "p".into(),
            node: "n".into(),
            interface: "eth0".into(),
            container_id: container.into(),
            network: String::new(),
            pod_namespace: "ns".into(),
            pod_name: "pod".into(),
            pod_uid: pod_uid.into(),
            owner_kind: String::new(),
        }
    }

    #[test]
    fn follows_an_address_from_pod_to_pod() {
        let mut index = HeldIndex::default();
        index.apply(held("10.0.0.1/24", "a", "c1"));
        index.apply(held("fd00::1/64", "a", "c1"));
        index.apply(held("10.0.0.1/24", "b", "c2"));
        assert_eq!(index.of_pod("a").len(), 1);
        assert_eq!(index.of_pod("b").len(), 1);
        index.delete("fd00::1".parse().unwrap());
        assert!(index.of_pod("a").is_empty() && index.by_pod.len() == 1);
        assert_eq!(index.of_pool("p"), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn a_sandbox_names_its_pods() {
        let mut index = HeldIndex::default();
        index.reset(vec![held("10.0.0.1/24", "old", "c1"), held("10.0.0.2/24", "new", "c2")]);
        assert_eq!(index.owners("ns", "pod", "c1"), ["old".to_owned()].into());
        assert_eq!(index.owners("ns", "other", "c1"), [].into());
        assert_eq!(index.holders().len(), 2);
    }
}
