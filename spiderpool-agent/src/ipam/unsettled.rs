//! Addresses that were asked for and may be ours or not: remembered until the API server has said which.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ipnet::IpNet;
use spiderpool_core::ip::Family;
use spiderpool_core::names::{IfName, PoolName};

use super::held::Holder;

/// What an address is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Purpose {
    /// The pod.
    pub pod_uid: String,
    /// Its NIC.
    pub nic: IfName,
    /// The family.
    pub family: Family,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    /// The address.
    pub net: IpNet,
    /// Its pool.
    pub pool: PoolName,
    /// For whom.
    pub holder: Holder,
}

/// At most one attempt per purpose: it is settled before the pod gets another address.
#[derive(Debug, Default)]
pub(super) struct Unsettled(Mutex<HashMap<Purpose, Attempt>>);

impl Unsettled {
    /// The outcome is unknown.
    pub(super) fn insert(&self, purpose: Purpose, attempt: Attempt) {
        self.with(|all| all.insert(purpose, attempt));
    }

    /// The outcome is known.
    pub(super) fn remove(&self, purpose: &Purpose) {
        self.with(|all| all.remove(purpose));
    }

    /// The attempt whose outcome is unknown, if there is one.
    pub(super) fn get(&self, purpose: &Purpose) -> Option<Attempt> {
        self.with(|all| all.get(purpose).cloned())
    }

    /// All of a pod.
    pub(super) fn of_pod(&self, uid: &str) -> Vec<(Purpose, Attempt)> {
        self.with(|all| {
            let of_pod = all.iter().filter(|(purpose, _)| purpose.pod_uid == uid);
            of_pod.map(|(purpose, attempt)| (purpose.clone(), attempt.clone())).collect()
        })
    }

    /// The pods that may hold something.
    pub(super) fn holders(&self) -> Vec<Holder> {
        self.with(|all| all.values().map(|attempt| attempt.holder.clone()).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Purpose, Attempt>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
