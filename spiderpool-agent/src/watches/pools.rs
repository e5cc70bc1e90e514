//! SpiderIPPools, parsed once per generation.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::ObjectMeta;
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::pool::{Overlap, shared_addresses};
use spiderpool_core::ipam::{Pool, PoolEntry, PoolError};
use spiderpool_core::names::PoolName;

use super::Index;

/// SpiderIPPools by name.
#[derive(Debug, Default)]
pub struct PoolIndex(BTreeMap<String, Known>);

#[derive(Debug)]
struct Known {
    uid: Option<String>,
    generation: Option<i64>,
    terminating: bool,
    pool: Result<Arc<Pool>, Arc<PoolError>>,
}

impl PoolIndex {
    /// The pool of this name; `None` if there is none.
    pub fn get(&self, name: &PoolName) -> Option<PoolEntry> {
        let known = self.0.get(name.as_str())?;
        let overlap = known.pool.as_ref().ok().and_then(|pool| self.overlap(pool));
        Some(PoolEntry { spec: known.pool.clone(), terminating: known.terminating, overlap })
    }

    /// What a pool shares with another one that hands out addresses.
    pub fn overlap(&self, pool: &Pool) -> Option<Overlap> {
        let serving = self.0.values().filter(|known| !known.terminating);
        let serving = serving.filter_map(|known| known.pool.as_ref().ok()).filter(|other| !other.disabled);
        serving.filter(|other| other.name != pool.name).find_map(|other| {
            let ranges = shared_addresses(pool, other);
            (!ranges.is_empty()).then(|| Overlap {
                first: pool.name.clone(),
                second: other.name.clone(),
                ranges,
            })
        })
    }

    /// Whether the spec of this generation of a pool is known.
    pub fn has(&self, meta: &ObjectMeta) -> bool {
        let known = meta.name.as_deref().and_then(|name| self.0.get(name));
        known.is_some_and(|known| {
            let state = (meta.generation, meta.deletion_timestamp.is_some());
            // Generations begin at 1 again in a pool that was deleted and made anew.
            known.generation.is_some()
                && known.uid == meta.uid
                && (known.generation, known.terminating) == state
        })
    }

    /// Whether there is a pool of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The pools with `spec.default`, and their families.
    pub fn defaults(&self) -> Vec<(PoolName, Family)> {
        let pools = self.0.values().filter_map(|known| known.pool.as_ref().ok());
        pools.filter(|pool| pool.default).map(|pool| (pool.name.clone(), pool.family())).collect()
    }
}

impl Index<SpiderIPPool> for PoolIndex {
    fn apply(&mut self, pool: SpiderIPPool) {
        let name = pool.metadata.name.clone().unwrap_or_default();
        let (generation, terminating) =
            (pool.metadata.generation, pool.metadata.deletion_timestamp.is_some());
        // Status changes often, and nothing here depends on it.
        if !self.has(&pool.metadata) {
            let uid = pool.metadata.uid.clone();
            self.0.insert(
                name,
                Known {
                    uid,
                    generation,
                    terminating,
                    pool: Pool::try_from(&pool).map(Arc::new).map_err(Arc::new),
                },
            );
        }
    }

    fn delete(&mut self, pool: &SpiderIPPool) {
        self.0.remove(pool.metadata.name.as_deref().unwrap_or_default());
    }

    fn reset(&mut self, pools: Vec<SpiderIPPool>) {
        self.0.clear();
        for pool in pools {
            self.apply(pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(generation: i64, ips: &str, default: bool) -> SpiderIPPool {
        serde_json::from_value(json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": "p", "generation": generation},
            "spec": {"subnet": "10.6.0.0/16", "ips": [ips], "default": default},
        }))
        .unwrap()
    }

    fn usable(index: &PoolIndex) -> u128 {
        index.get(&"p".parse().unwrap()).unwrap().spec.unwrap().usable.len()
    }

    #[test]
    fn a_pool_that_was_made_anew_is_another() {
        let with_uid = |uid: &str, ips| {
            let mut pool = pool(1, ips, false);
            pool.metadata.uid = Some(uid.to_owned());
            pool
        };
        let mut index = PoolIndex::default();
        index.apply(with_uid("u-1", "10.6.0.1-10.6.0.9"));
        let anew = with_uid("u-2", "10.6.0.1");
        assert!(!index.has(&anew.metadata));
        index.apply(anew);
        assert_eq!(usable(&index), 1);
    }

    #[test]
    fn a_new_generation_counts_a_new_status_does_not() {
        let mut index = PoolIndex::default();
        index.apply(pool(1, "10.6.0.1-10.6.0.9", true));
        assert_eq!((usable(&index), index.defaults().len()), (9, 1));
        index.apply(pool(1, "10.6.0.1", true));
        assert_eq!(usable(&index), 9);
        index.apply(pool(2, "10.6.0.1", false));
        assert_eq!((usable(&index), index.defaults().len()), (1, 0));
        index.delete(&pool(2, "10.6.0.1", false));
        assert!(index.get(&"p".parse().unwrap()).is_none());
    }

    #[test]
    fn a_pool_that_makes_no_sense_is_known_as_such() {
        let mut index = PoolIndex::default();
        index.reset(vec![pool(1, "10.7.0.1", true)]);
        assert!(index.get(&"p".parse().unwrap()).unwrap().spec.is_err());
        assert!(index.defaults().is_empty());
    }
}
