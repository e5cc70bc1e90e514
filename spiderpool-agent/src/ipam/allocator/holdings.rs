//! The addresses of this node's pods: filled by one list at start, then kept by the agent's own writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use spiderpool_api::crd::{HoldingError, SpiderIPAddress};
use spiderpool_core::ipam::{Holding, Owner};
use spiderpool_core::names::{ContainerId, PodName, PodUid, PoolName};

/// A holding, and which state of its object says so: what an update or a deletion must find. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AddressObject {
    /// What the object says.
    pub(crate) holding: Arc<Holding>,
    /// The object's UID.
    pub(crate) uid: Arc<str>,
    /// The object's resourceVersion.
    pub(crate) version: Arc<str>,
    /// Since when the address is held, by the API server's clock.
    pub(crate) created: Option<Timestamp>,
}

impl TryFrom<&SpiderIPAddress> for AddressObject {
    type Error = HoldingError;

    fn try_from(object: &SpiderIPAddress) -> Result<Self, HoldingError> {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        Ok(Self {
            holding: Arc::new(Holding::try_from(object)?),
            uid: text(&object.metadata.uid),
            version: text(&object.metadata.resource_version),
            created: object.metadata.creation_timestamp.as_ref().map(|time| time.0),
        })
    }
}

impl AsRef<Holding> for AddressObject {
    fn as_ref(&self) -> &Holding {
        &self.holding
    }
}

/// Addresses by themselves and by pod.
#[derive(Debug, Default)]
pub(crate) struct HoldingIndex {
    by_ip: BTreeMap<IpAddr, AddressObject>,
    by_pod: HashMap<PodUid, BTreeSet<IpAddr>>,
    /// Since when NICs are detached, as far as this agent knows.
    detached: HashMap<IpAddr, Instant>,
}

impl HoldingIndex {
    /// The address is held, or what is known of it has changed.
    pub(crate) fn apply(&mut self, object: AddressObject) {
        let ip = object.holding.ip();
        let same = self.by_ip.get(&ip).is_some_and(|known| known.uid == object.uid);
        let since = self.detached.get(&ip).copied().filter(|_| same);
        self.delete(ip);
        if object.holding.is_detached {
            self.detached.insert(ip, since.unwrap_or_else(Instant::now));
        }
        self.by_pod.entry(object.holding.owner.pod.uid.clone()).or_default().insert(ip);
        self.by_ip.insert(ip, object);
    }

    /// The address is free.
    pub(crate) fn delete(&mut self, ip: IpAddr) {
        let Some(object) = self.by_ip.remove(&ip) else { return };
        self.detached.remove(&ip);
        let uid = &object.holding.owner.pod.uid;
        if let Some(addresses) = self.by_pod.get_mut(uid) {
            addresses.remove(&ip);
            if addresses.is_empty() {
                self.by_pod.remove(uid);
            }
        }
    }

    /// Exactly these are held.
    pub(crate) fn reset(&mut self, all: Vec<AddressObject>) {
        self.by_ip.clear();
        self.by_pod.clear();
        self.detached.clear();
        for object in all {
            self.apply(object);
        }
    }

    /// Everything that is held.
    pub(crate) fn all(&self) -> Vec<AddressObject> {
        self.by_ip.values().cloned().collect()
    }

    /// Whether the address is held.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.by_ip.contains_key(&ip)
    }

    /// What the pod holds, over all its NICs, lowest address first.
    pub(crate) fn of_pod(&self, uid: &PodUid) -> Vec<AddressObject> {
        let addresses = self.by_pod.get(uid).into_iter().flatten();
        addresses.filter_map(|ip| self.by_ip.get(ip).cloned()).collect()
    }

    /// Since when no sandbox is known to use the address; `None` if one does.
    pub(crate) fn detached_since(&self, ip: IpAddr) -> Option<Instant> {
        self.detached.get(&ip).copied()
    }

    /// Whether the pod holds an address that no sandbox uses.
    pub(crate) fn has_detached(&self, uid: &PodUid) -> bool {
        self.by_pod.get(uid).into_iter().flatten().any(|ip| self.detached.contains_key(ip))
    }

    /// Since when the last of the pod's detached NICs is; `None` if none is.
    pub(crate) fn last_detached(&self, uid: &PodUid) -> Option<Instant> {
        let addresses = self.by_pod.get(uid).into_iter().flatten();
        addresses.filter_map(|ip| self.detached.get(ip)).max().copied()
    }

    /// The UIDs under which a pod of this name holds something for this sandbox.
    pub(crate) fn uids(&self, pod: &PodName, container_id: &ContainerId) -> BTreeSet<PodUid> {
        let holdings = self.by_ip.values().map(|object| &object.holding);
        holdings
            .filter(|holding| holding.owner.pod.name == *pod)
            .filter(|holding| holding.container_id.as_ref() == Some(container_id))
            .map(|holding| holding.owner.pod.uid.clone())
            .collect()
    }

    /// The held addresses of a pool.
    pub(crate) fn of_pool(&self, pool: &PoolName) -> Vec<IpAddr> {
        let holdings = self.by_ip.values().map(|object| &object.holding);
        holdings.filter(|holding| holding.pool == *pool).map(|holding| holding.ip()).collect()
    }

    /// The pods that hold something.
    pub(crate) fn owners(&self) -> Vec<Arc<Owner>> {
        let first = self.by_pod.values().filter_map(BTreeSet::first);
        first.filter_map(|ip| Some(Arc::clone(&self.by_ip.get(ip)?.holding.owner))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_core::ipam::address_name::object_name;

    use super::*;

    fn object(address: &str, pod_uid: &str, container: &str) -> AddressObject {
        let net: ipnet::IpNet = address.parse().unwrap();
        let spec = json!({
            "address": address, "pool": "p", "node": "n", "interface": "eth0", "containerID": container,
            "detached": container.is_empty(),
            "podNamespace": "ns", "podName": "pod", "podUID": pod_uid,
        });
        let metadata = json!({"name": object_name(net.addr()), "uid": "o", "resourceVersion": "1"});
        let object = json!({"metadata": metadata, "spec": spec});
        AddressObject::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
    }

    fn uid(text: &str) -> PodUid {
        text.parse().unwrap()
    }

    #[test]
    fn follows_an_address_from_pod_to_pod() {
        let mut index = HoldingIndex::default();
        index.apply(object("10.0.0.1/24", "a", "c1"));
        index.apply(object("fd00::1/64", "a", "c1"));
        index.apply(object("10.0.0.1/24", "b", "c2"));
        assert_eq!(index.of_pod(&uid("a")).len(), 1);
        assert_eq!(index.of_pod(&uid("b")).len(), 1);
        index.delete("fd00::1".parse().unwrap());
        assert!(index.of_pod(&uid("a")).is_empty() && index.by_pod.len() == 1);
        assert_eq!(index.of_pool(&"p".parse().unwrap()), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn an_address_is_detached_since_its_object_first_said_so() {
        let mut index = HoldingIndex::default();
        let ip = "10.0.0.1".parse().unwrap();
        index.apply(object("10.0.0.1/24", "a", "c1"));
        assert!(!index.has_detached(&uid("a")));
        index.apply(object("10.0.0.1/24", "a", ""));
        let since = index.detached_since(ip);
        index.apply(object("10.0.0.1/24", "a", ""));
        assert!(since.is_some() && index.detached_since(ip) == since && index.has_detached(&uid("a")));
        assert_eq!(index.last_detached(&uid("a")), since);
        index.apply(object("10.0.0.1/24", "a", "c2"));
        assert_eq!(index.detached_since(ip), None);
        index.apply(object("10.0.0.1/24", "a", ""));
        index.delete(ip);
        assert_eq!(index.detached_since(ip), None);
    }

    #[test]
    fn a_sandbox_names_its_pods() {
        let mut index = HoldingIndex::default();
        index.reset(vec![object("10.0.0.1/24", "old", "c1"), object("10.0.0.2/24", "new", "c2")]);
        let uids = |name| index.uids(&PodName::new("ns", name).unwrap(), &"c1".parse().unwrap());
        assert_eq!(uids("pod"), [uid("old")].into());
        assert_eq!(uids("other"), [].into());
        assert_eq!(index.owners().len(), 2);
    }
}
