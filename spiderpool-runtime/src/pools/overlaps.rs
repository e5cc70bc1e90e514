//! Which pools share addresses, computed when a pool changes: the changed one is compared with the others.

use std::collections::BTreeMap;

use spiderpool_core::ip::IpRange;
use spiderpool_core::ipam::Pool;
use spiderpool_core::ipam::pool::shared_addresses;
use spiderpool_core::names::PoolName;

/// By pool and by the other one; each overlap is there twice.
#[derive(Debug, Clone, Default)]
pub(super) struct Overlaps(BTreeMap<PoolName, BTreeMap<PoolName, Vec<IpRange>>>);

impl Overlaps {
    /// What the pool shares with others, by the other's name.
    pub(super) fn of_pool(&self, name: &str) -> impl Iterator<Item = (&PoolName, &Vec<IpRange>)> {
        self.0.get(name).into_iter().flatten()
    }

    /// The pool is new or has changed; `others` are all others.
    pub(super) fn insert<'a>(&mut self, pool: &Pool, others: impl IntoIterator<Item = &'a Pool>) {
        self.remove(&pool.name);
        for other in others {
            let ranges = shared_addresses(pool, other);
            if ranges.is_empty() {
                continue;
            }
            self.0.entry(other.name.clone()).or_default().insert(pool.name.clone(), ranges.clone());
            self.0.entry(pool.name.clone()).or_default().insert(other.name.clone(), ranges);
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
