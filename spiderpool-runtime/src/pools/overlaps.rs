//! Which pools share addresses, computed when a pool changes: the changed one is compared with the others.

use std::collections::BTreeMap;

use spiderpool_core::ipam::Pool;
use spiderpool_core::ipam::pool::{Overlap, shared_addresses};
use spiderpool_core::names::PoolName;

/// By pool and by the other one; each overlap is there twice, as seen by either.
#[derive(Debug, Clone, Default)]
pub(super) struct Overlaps(BTreeMap<PoolName, BTreeMap<PoolName, Overlap>>);

impl Overlaps {
    /// What the pool shares with others, by the other's name.
    pub(super) fn of_pool(&self, name: &PoolName) -> impl IntoIterator<Item = &Overlap> {
        self.0.get(name).into_iter().flat_map(BTreeMap::values)
    }

    /// The pool is new or has changed; `others` are all others.
    pub(super) fn insert<'a>(&mut self, pool: &Pool, others: impl IntoIterator<Item = &'a Pool>) {
        self.remove(&pool.name);
        for overlap in others.into_iter().filter_map(|other| between(pool, other)) {
            let Overlap { first, second, ranges } = overlap.clone();
            let mirrored = Overlap { first: second.clone(), second: first.clone(), ranges };
            self.0.entry(second.clone()).or_default().insert(first.clone(), mirrored);
            self.0.entry(first).or_default().insert(second, overlap);
        }
    }

    /// The pool shares nothing with others.
    pub(super) fn remove(&mut self, name: &PoolName) {
        for other in self.0.remove(name).into_iter().flat_map(BTreeMap::into_keys) {
            if let Some(overlaps) = self.0.get_mut(&other) {
                overlaps.remove(name);
                if overlaps.is_empty() {
                    self.0.remove(&other);
                }
            }
        }
    }
}

/// What two pools share, as seen by the first.
pub(super) fn between(pool: &Pool, other: &Pool) -> Option<Overlap> {
    let ranges = shared_addresses(pool, other);
    if ranges.is_empty() {
        return None;
    }
    Some(Overlap { first: pool.name.clone(), second: other.name.clone(), ranges })
}
