//! Addresses that pods of this node use and pods of other nodes hold: virtual machines are moving here. Their objects are
//! these pods' when the machines have moved, which no watch tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use spiderpool_core::ipam::Holding;
use spiderpool_core::names::{PodIdentity, PodUid};

/// By pod, each address as it is to be written once it is the pod's.
#[derive(Debug, Default)]
pub(super) struct SharedAddresses(Mutex<HashMap<PodUid, Vec<Arc<Holding>>>>);

impl SharedAddresses {
    /// A pod uses this address. The ADD of another NIC does not know the network of this one.
    pub(super) fn insert(&self, mut wanted: Holding) {
        self.with(|all| {
            let of_pod = all.entry(wanted.owner.pod.uid.clone()).or_default();
            let earlier = of_pod.iter().position(|known| known.address == wanted.address);
            if let Some(earlier) = earlier.map(|place| of_pod.swap_remove(place))
                && earlier.container_id == wanted.container_id
            {
                wanted.network = wanted.network.or_else(|| earlier.network.clone());
            }
            of_pod.push(Arc::new(wanted));
        });
    }

    /// It is the pod's now.
    pub(super) fn remove(&self, wanted: &Holding) {
        let uid = &wanted.owner.pod.uid;
        self.with(|all| {
            let Some(of_pod) = all.get_mut(uid) else { return };
            of_pod.retain(|known| known.address != wanted.address);
            if of_pod.is_empty() {
                all.remove(uid);
            }
        });
    }

    /// All of a pod.
    pub(super) fn of_pod(&self, uid: &PodUid) -> Vec<Arc<Holding>> {
        self.with(|all| all.get(uid).cloned().unwrap_or_default())
    }

    /// The pod uses none any more.
    pub(super) fn forget(&self, uid: &PodUid) {
        self.with(|all| all.remove(uid));
    }

    /// The pods that use some.
    pub(super) fn pods(&self) -> Vec<PodIdentity> {
        self.with(|all| all.values().filter_map(|of_pod| Some(of_pod.first()?.owner.pod.clone())).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<PodUid, Vec<Arc<Holding>>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
