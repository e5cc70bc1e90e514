//! What runtimes have been told: which pod uses which address. An entry begins with the answer to an ADD and ends before anybody
//! else can know that the pod ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A pod that uses an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) uid: String,
    pub(crate) name: String,
}

#[derive(Debug, Default)]
struct Entries {
    by_address: HashMap<String, Live>,
    /// The address that goes with a name.
    kept: HashMap<String, String>,
    violations: Vec<String>,
    adds: usize,
}

/// Shared by all pods.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod has been given this address.
    pub(crate) fn given(&self, pod: &Live, address: &str) {
        let mut entries = self.lock();
        entries.adds += 1;
        let other = entries.by_address.insert(address.to_owned(), pod.clone());
        if let Some(other) = other.filter(|other| other != pod) {
            entries.violations.push(format!("{address} of {other:?} was given to {pod:?}"));
        }
        let more: Vec<_> =
            entries.by_address.iter().filter(|(_, live)| *live == pod).map(|(ip, _)| ip.clone()).collect();
        if more.len() > 1 {
            entries.violations.push(format!("{pod:?} has been given {more:?}"));
        }
    }

    /// The address that the pods of this name have, from the first one on.
    pub(crate) fn expect_kept(&self, name: &str, address: &str) {
        let mut entries = self.lock();
        let known = entries.kept.entry(name.to_owned()).or_insert_with(|| address.to_owned()).clone();
        if known != address {
            entries.violations.push(format!("{name} had {known}, and was given {address}"));
        }
    }

    /// No pod of these names will come any more.
    pub(crate) fn expect_none_kept(&self) {
        self.lock().kept.clear();
    }

    /// The pod begins to end.
    pub(crate) fn ends(&self, pod: &Live) {
        self.lock().by_address.retain(|_, live| live != pod);
    }

    /// Something else is wrong.
    pub(crate) fn violated(&self, what: String) {
        self.lock().violations.push(what);
    }

    /// The pods that use an address now.
    pub(crate) fn live(&self) -> HashMap<String, Live> {
        self.lock().by_address.clone()
    }

    /// The addresses that go with names.
    pub(crate) fn kept(&self) -> HashMap<String, String> {
        self.lock().kept.clone()
    }

    /// What was wrong until now.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// How many ADDs have succeeded.
    pub(crate) fn adds(&self) -> usize {
        self.lock().adds
    }
}
