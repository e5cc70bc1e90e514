//! SpiderIPPoolUsage: which addresses of a block are in use, for agents that pick. Written only where a random pick is
//! likely to collide: in a large, sparse pool nobody needs it, and it would have a block per address.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use spiderpool_api::crd::{SpiderIPPoolUsage, SpiderIPPoolUsageSpec};
use spiderpool_api::labels;
use spiderpool_core::ip::{IpRange, IpSet};
use spiderpool_core::ipam::Pool;
use spiderpool_core::ipam::address_name::{label_value, object_name};
use spiderpool_core::ipam::usage::{BlockMembers, UsageBlock, blocks};

use crate::leader::state::ClusterState;

/// How much of a pool's name is in the names of its blocks.
const MAX_STEM: usize = 150;
/// A block is written when one of so many of the pool's addresses in it is in use: as often does a pick collide.
const NOTICEABLE: u128 = 100;
/// It stays until half as many are, so that it does not come and go.
const NEGLIGIBLE: u128 = 2 * NOTICEABLE;
/// Blocks of a pool at most, the fullest ones: this bounds what an agent reads before it picks.
const MAX_BLOCKS: usize = 16;

/// What is in use of a pool, copied out of the state: the rest takes time.
#[derive(Debug)]
pub(super) struct PoolInUse {
    pool: Arc<Pool>,
    addresses: Vec<IpAddr>,
}

impl PoolInUse {
    /// `None` if there is no such pool or its spec is invalid: nobody picks from it.
    pub(super) fn of(state: &ClusterState, pool: &str) -> Option<Self> {
        let spec = state.pools.get(pool)?.spec()?.as_ref().ok()?;
        let addresses = state.addresses.of_pool(pool).map(|(ip, _)| ip).collect();
        Some(Self { pool: Arc::clone(spec), addresses })
    }

    /// The blocks that are worth writing; `is_stored` says which ones are there.
    fn blocks(&self, is_stored: impl Fn(IpAddr) -> bool) -> Vec<UsageBlock> {
        let ranges = self.addresses.iter().copied().map(IpRange::single);
        let in_use = IpSet::from_ranges(self.pool.family(), ranges);
        let shares = blocks(&in_use).filter_map(|block| {
            let share = Share { in_use: block.count().into(), usable: block.count_of(&self.pool.usable) };
            // Most blocks of a sparse pool are passed over here.
            let stored = share.is_noticeable(NEGLIGIBLE) && is_stored(block.base());
            (stored || share.is_noticeable(NOTICEABLE)).then(|| (share.eighths(), stored, block))
        });
        let mut chosen: Vec<_> = shares.collect();
        // Among those that are about as full, the ones that are there stay.
        chosen.sort_by_key(|(eighths, stored, block)| (Reverse((*eighths, *stored)), block.base()));
        chosen.iter().take(MAX_BLOCKS).map(|(_, _, block)| BlockMembers::encode(block)).collect()
    }
}

/// How many of the pool's addresses in a block are in use.
#[derive(Debug, Clone, Copy)]
struct Share {
    in_use: u128,
    usable: u128,
}

impl Share {
    fn is_noticeable(self, one_in: u128) -> bool {
        self.usable > 0 && self.in_use * one_in >= self.usable
    }

    fn eighths(self) -> u128 {
        self.in_use * 8 / self.usable
    }
}

/// A write of one block.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum BlockWrite {
    /// A noticeable share of its addresses is in use.
    Put(Box<SpiderIPPoolUsage>),
    /// It is not needed any more.
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
    pub(super) fn plan(&self, pool: &str, in_use: Option<&PoolInUse>) -> Vec<BlockWrite> {
        let none = BTreeMap::new();
        let known = self.0.get(pool).unwrap_or(&none);
        let is_stored = |base| known.contains_key(&name(pool, base));
        let desired = in_use.map_or_else(Vec::new, |in_use| in_use.blocks(is_stored));
        let desired: BTreeMap<_, _> = desired.iter().map(|block| (name(pool, block.base), block)).collect();
        let gone = known.keys().filter(|name| !desired.contains_key(*name)).cloned().map(BlockWrite::Delete);
        let changed = desired.iter().filter(|(name, block)| known.get(*name) != Some(&block.bitmap));
        gone.chain(changed.map(|(_, block)| BlockWrite::Put(Box::new(object(pool, block))))).collect()
    }
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
        let pool = json!({"metadata": {"name": "p"}, "spec": {"subnet": "10.0.0.0/8", "ips": ["10.1.0.1-10.1.0.100", "10.2.0.1-10.2.0.100"]}});
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

    fn planned(stored: &StoredBlocks, state: &ClusterState) -> Vec<BlockWrite> {
        stored.plan("p", PoolInUse::of(state, "p").as_ref())
    }

    fn applied(stored: &mut StoredBlocks, state: &ClusterState) -> usize {
        let writes = planned(stored, state);
        for write in &writes {
            match write {
                BlockWrite::Put(object) => stored.put(object),
                BlockWrite::Delete(name) => stored.delete("p", name),
            }
        }
        writes.len()
    }

    fn pool(subnet: &str, ips: &[&str]) -> Arc<Pool> {
        let pool = json!({"metadata": {"name": "p"}, "spec": {"subnet": subnet, "ips": ips}});
        let mut state = ClusterState::default();
        state.apply(serde_json::from_value::<spiderpool_runtime::pools::PoolObject>(pool).unwrap());
        PoolInUse::of(&state, "p").unwrap().pool
    }

    fn random(seed: u64) -> u64 {
        // An odd multiplier: each seed has another result.
        seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Picks do not collide there, and each address would have a block of its own.
    #[test]
    fn a_sparse_pool_has_no_blocks() {
        let pool = pool("fd00::/64", &["fd00::1-fd00::ffff:ffff:ffff:ffff"]);
        let addresses = (0..20_000u64)
            .map(|seed| IpAddr::from(((0xfd00u128 << 112) | u128::from(random(seed))).to_be_bytes()));
        let in_use = PoolInUse { pool, addresses: addresses.collect() };
        let begun = std::time::Instant::now();
        assert_eq!(StoredBlocks::default().plan("p", Some(&in_use)), []);
        println!("20,000 addresses of a /64 planned in {:?}", begun.elapsed());
    }

    /// Of a pool with many crowded blocks the fullest ones are written: agents read a bounded amount.
    #[test]
    fn a_huge_pool_has_a_bounded_number_of_blocks() {
        let pool = pool("10.0.0.0/8", &["10.0.0.1-10.255.255.254"]);
        let crowded = |second: u8| {
            let count = if second == 40 { 40_000 } else { 1000 };
            (0..count).map(move |n: u32| {
                IpAddr::from((0x0a00_0000 + (u32::from(second) << 16) + n + 1).to_be_bytes())
            })
        };
        let in_use = PoolInUse { pool, addresses: (0..64).flat_map(crowded).collect() };
        let mut stored = StoredBlocks::default();
        let writes = stored.plan("p", Some(&in_use));
        assert_eq!(writes.len(), MAX_BLOCKS);
        for write in &writes {
            let BlockWrite::Put(object) = write else { panic!("{write:?}") };
            stored.put(object);
        }
        assert!(stored.0["p"].contains_key("p.10.40.0.0"), "the fullest one");
        assert_eq!(stored.plan("p", Some(&in_use)), []);
    }

    #[test]
    fn a_block_comes_and_goes_by_the_share_in_use() {
        let pool = pool("10.0.0.0/22", &["10.0.0.1-10.0.3.232"]);
        let of = |count: u32| {
            let addresses = (1..=count).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
            PoolInUse { pool: Arc::clone(&pool), addresses }
        };
        assert_eq!(pool.usable.len(), 1000);
        let mut stored = StoredBlocks::default();
        assert_eq!(stored.plan("p", Some(&of(9))), []);
        let writes = stored.plan("p", Some(&of(10)));
        let [BlockWrite::Put(object)] = &writes[..] else { panic!("{writes:?}") };
        stored.put(object);
        assert!(matches!(&stored.plan("p", Some(&of(5)))[..], [BlockWrite::Put(_)]), "it stays");
        assert_eq!(stored.plan("p", Some(&of(4))), [BlockWrite::Delete("p.10.0.0.0".into())]);
    }

    #[test]
    fn one_block_per_65536_addresses_written_when_it_changes() {
        let mut stored = StoredBlocks::default();
        assert_eq!(applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"])), 2);
        assert_eq!(applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"])), 0);
        let writes = planned(&stored, &state(&["10.1.0.1", "10.1.0.2", "10.2.0.1"]));
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
            matches!(&planned(&stored, &before)[..], [BlockWrite::Put(object)] if object.spec.in_use == 1)
        );
        assert_eq!(planned(&stored, &ClusterState::default()), [BlockWrite::Delete("p.10.1.0.0".into())]);
    }

    #[test]
    fn a_block_without_addresses_or_pool_is_deleted() {
        let mut stored = StoredBlocks::default();
        applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"]));
        assert_eq!(planned(&stored, &state(&["10.1.0.1"])), [BlockWrite::Delete("p.10.2.0.0".into())]);
        assert_eq!(applied(&mut stored, &ClusterState::default()), 2);
        assert_eq!(stored.pools().count(), 0);
    }

    #[test]
    fn names_of_blocks_fit_an_object() {
        let long = name(&"a".repeat(253), "ffff:ffff::".parse().unwrap());
        assert!(long.len() <= 253 && long.parse::<spiderpool_core::names::PoolName>().is_ok(), "{long}");
    }
}
