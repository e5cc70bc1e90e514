//! Addresses that were asked for and may be ours or not: remembered until the API server has said which.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use spiderpool_core::ip::Family;
use spiderpool_core::ipam::{Holding, Owner};
use spiderpool_core::names::{IfName, PodUid};

/// What an address is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Purpose {
    /// The pod.
    pub(super) pod_uid: PodUid,
    /// Its NIC.
    pub(super) nic: IfName,
    /// The family.
    pub(super) family: Family,
}

impl Purpose {
    /// Of an address that is held, or would be.
    pub(super) fn of(holding: &Holding) -> Self {
        Self { pod_uid: holding.owner.pod.uid.clone(), nic: holding.nic.clone(), family: holding.family() }
    }
}

/// At most one address per purpose: its outcome is known before the pod gets another one.
#[derive(Debug, Default)]
pub(super) struct PendingCreates(Mutex<HashMap<Purpose, Arc<Holding>>>);

impl PendingCreates {
    /// The outcome of this attempt is unknown.
    pub(super) fn insert(&self, wanted: Holding) {
        self.with(|all| all.insert(Purpose::of(&wanted), Arc::new(wanted)));
    }

    /// The outcome is known.
    pub(super) fn remove(&self, purpose: &Purpose) {
        self.with(|all| all.remove(purpose));
    }

    /// The attempt whose outcome is unknown, if there is one.
    pub(super) fn get(&self, purpose: &Purpose) -> Option<Arc<Holding>> {
        self.with(|all| all.get(purpose).cloned())
    }

    /// All of a pod.
    pub(super) fn of_pod(&self, uid: &PodUid) -> Vec<Arc<Holding>> {
        self.with(|all| {
            let of_pod = all.iter().filter(|(purpose, _)| purpose.pod_uid == *uid);
            of_pod.map(|(_, wanted)| Arc::clone(wanted)).collect()
        })
    }

    /// The pods that may hold something.
    pub(super) fn owners(&self) -> Vec<Arc<Owner>> {
        self.with(|all| all.values().map(|wanted| Arc::clone(&wanted.owner)).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Purpose, Arc<Holding>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
