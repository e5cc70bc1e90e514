//! SpiderIPPoolUsage: which addresses of a block are in use, for agents that pick.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use spiderpool_api::crd::{SpiderIPPoolUsage, SpiderIPPoolUsageSpec};
use spiderpool_api::labels;
use spiderpool_core::ip::{Family, IpRange, IpSet};
use spiderpool_core::ipam::address_name::{label_value, object_name};
use spiderpool_core::ipam::usage::{UsageBlock, encode};

use crate::leader::state::ClusterState;

/// How much of a pool's name is in the names of its blocks.
const MAX_STEM: usize = 150;

/// A write of one block.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum BlockWrite {
    /// It has addresses in use.
    Put(Box<SpiderIPPoolUsage>),
    /// It has none any more.
    Delete(String),
}

/// Bitmaps of the blocks on the API server, by pool and name.
#[derive(Debug, Default)]
pub(super) struct StoredBlocks(HashMap<Arc<str>, BTreeMap<String, String>>);

impl StoredBlocks {
    /// From a list of all.
    pub(super) fn new(objects: &[SpiderIPPoolUsage]) -> Self {
        let mut stored = Self::default();
        for object in objects {
            stored.put(object);
        }
        stored
    }

    /// The block was written.
    pub(super) fn put(&mut self, object: &SpiderIPPoolUsage) {
        let name = object.metadata.name.clone().unwrap_or_default();
        let pool = object.spec.pool.as_str().into();
        self.0.entry(pool).or_default().insert(name, object.spec.bitmap.clone());
    }

    /// Whether the block exists, and its bitmap, are unknown: the next plan writes or deletes it.
    pub(super) fn mark_unknown(&mut self, pool: &str, name: &str) {
        // No stored block has an empty bitmap.
        self.0.entry(pool.into()).or_default().insert(name.to_owned(), String::new());
    }

    /// The block was deleted.
    pub(super) fn delete(&mut self, pool: &str, name: &str) {
        if let Some(blocks) = self.0.get_mut(pool) {
            blocks.remove(name);
            if blocks.is_empty() {
                self.0.remove(pool);
            }
        }
    }

    /// The pools that have blocks.
    pub(super) fn pools(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.0.keys().cloned()
    }

    /// The writes after which the bitmaps of a pool are right.
    pub(super) fn plan(&self, state: &ClusterState, pool: &str) -> Vec<BlockWrite> {
        let none = BTreeMap::new();
        let known = self.0.get(pool).unwrap_or(&none);
        let exists = state.pools.get(pool).is_some();
        let desired: Vec<_> = if exists { blocks(state, pool) } else { Vec::new() };
        let desired: BTreeMap<_, _> = desired.iter().map(|block| (name(pool, block.base), block)).collect();
        let gone = known.keys().filter(|name| !desired.contains_key(*name)).cloned().map(BlockWrite::Delete);
        let changed = desired.iter().filter(|(name, block)| known.get(*name) != Some(&block.bitmap));
        gone.chain(changed.map(|(_, block)| BlockWrite::Put(Box::new(object(pool, block))))).collect()
    }
}

fn blocks(state: &ClusterState, pool: &str) -> Vec<UsageBlock> {
    let of = |family| {
        let in_use = state.addresses.of_pool(pool).map(|(ip, _)| IpRange::single(ip));
        IpSet::from_ranges(family, in_use)
    };
    Family::ALL.into_iter().flat_map(|family| encode(&of(family)).collect::<Vec<_>>()).collect()
}

/// The name of a block: a long pool's name is cut and its hash appended.
fn name(pool: &str, base: IpAddr) -> String {
    let stem = if pool.len() <= MAX_STEM { pool.to_owned() } else { label_value(pool) };
    format!("{stem}.{}", object_name(base))
}

fn object(pool: &str, block: &UsageBlock) -> SpiderIPPoolUsage {
    let spec = SpiderIPPoolUsageSpec {
        pool: pool.to_owned(),
        base: block.base.to_string(),
        bitmap: block.bitmap.clone(),
        in_use: i64::from(block.in_use),
    };
    let mut object = SpiderIPPoolUsage::new(&name(pool, block.base), spec);
    object.metadata.labels = Some([(labels::ADDRESS_POOL.to_owned(), label_value(pool))].into());
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_runtime::watch::Index;

    use super::*;
    use crate::leader::state::SlimAddress;

    fn state(ips: &[&str]) -> ClusterState {
        let mut state = ClusterState::default();
        let pool = json!({"metadata": {"name": "p"}, "spec": {"subnet": "10.0.0.0/8", "ips": ["10.0.0.0-10.9.0.0"]}});
        state.apply(serde_json::from_value::<spiderpool_runtime::pools::PoolObject>(pool).unwrap());
        for ip in ips {
            let spec = json!({"address": format!("{ip}/8"), "pool": "p", "interface": "net1", "podNamespace": "n", "podName": "a", "podUID": "u"});
            let object = json!({"metadata": {"name": ip}, "spec": spec});
            state.apply(SlimAddress::from(
                serde_json::from_value::<spiderpool_api::crd::SpiderIPAddress>(object).unwrap(),
            ));
        }
        state
    }

    fn applied(stored: &mut StoredBlocks, state: &ClusterState) -> usize {
        let writes = stored.plan(state, "p");
        for write in &writes {
            match write {
                BlockWrite::Put(object) => stored.put(object),
                BlockWrite::Delete(name) => stored.delete("p", name),
            }
        }
        writes.len()
    }

    #[test]
    fn one_block_per_65536_addresses_written_when_it_changes() {
        let mut stored = StoredBlocks::default();
        assert_eq!(applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"])), 2);
        assert_eq!(applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"])), 0);
        let writes = stored.plan(&state(&["10.1.0.1", "10.1.0.2", "10.2.0.1"]), "p");
        let [BlockWrite::Put(object)] = &writes[..] else { panic!("{writes:?}") };
        assert_eq!(object.metadata.name.as_deref(), Some("p.10.1.0.0"));
        assert_eq!((object.spec.base.as_str(), object.spec.in_use), ("10.1.0.0", 2));
        assert_eq!(object.metadata.labels.as_ref().unwrap()[labels::ADDRESS_POOL], "p");
    }

    /// A write that failed may have been done, while the state has changed back.
    #[test]
    fn an_unknown_block_is_written_again() {
        let mut stored = StoredBlocks::default();
        let before = state(&["10.1.0.1"]);
        applied(&mut stored, &before);
        stored.mark_unknown("p", "p.10.1.0.0");
        assert!(
            matches!(&stored.plan(&before, "p")[..], [BlockWrite::Put(object)] if object.spec.in_use == 1)
        );
        assert_eq!(stored.plan(&ClusterState::default(), "p"), [BlockWrite::Delete("p.10.1.0.0".into())]);
    }

    #[test]
    fn a_block_without_addresses_or_pool_is_deleted() {
        let mut stored = StoredBlocks::default();
        applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"]));
        assert_eq!(stored.plan(&state(&["10.1.0.1"]), "p"), [BlockWrite::Delete("p.10.2.0.0".into())]);
        assert_eq!(applied(&mut stored, &ClusterState::default()), 2);
        assert_eq!(stored.pools().count(), 0);
    }

    #[test]
    fn names_of_blocks_fit_an_object() {
        let long = name(&"a".repeat(253), "ffff:ffff::".parse().unwrap());
        assert!(long.len() <= 253 && long.parse::<spiderpool_core::names::PoolName>().is_ok(), "{long}");
    }
}
