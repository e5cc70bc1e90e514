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

/// The longest beginning of a pool's name in the name of its block.
const STEM: usize = 150;

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// The block has addresses in use.
    Put(Box<SpiderIPPoolUsage>),
    /// It has none any more.
    Delete(String),
}

/// The blocks that are known to be stored, by their names, with what they say.
#[derive(Debug, Default)]
pub(super) struct Stored(HashMap<Arc<str>, BTreeMap<String, String>>);

impl Stored {
    /// From a list of all.
    pub(super) fn new(objects: &[SpiderIPPoolUsage]) -> Self {
        let mut stored = Self::default();
        for object in objects {
            stored.put(object);
        }
        stored
    }

    /// The block says this now.
    pub(super) fn put(&mut self, object: &SpiderIPPoolUsage) {
        let name = object.metadata.name.clone().unwrap_or_default();
        let pool = object.spec.pool.as_str().into();
        self.0.entry(pool).or_default().insert(name, object.spec.bitmap.clone());
    }

    /// Nobody knows what the block says, or whether there is one: it is written again, or removed.
    pub(super) fn doubt(&mut self, pool: &str, name: &str) {
        // No block that is stored has an empty bitmap.
        self.0.entry(pool.into()).or_default().insert(name.to_owned(), String::new());
    }

    /// The block is gone.
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

    /// What is to be written for a pool.
    pub(super) fn plan(&self, state: &ClusterState, pool: &str) -> Vec<Step> {
        let none = BTreeMap::new();
        let known = self.0.get(pool).unwrap_or(&none);
        let exists = state.pools.get(pool).is_some();
        let wanted: Vec<_> = if exists { blocks(state, pool) } else { Vec::new() };
        let wanted: BTreeMap<_, _> = wanted.iter().map(|block| (name(pool, block.base), block)).collect();
        let gone = known.keys().filter(|name| !wanted.contains_key(*name)).cloned().map(Step::Delete);
        let changed = wanted.iter().filter(|(name, block)| known.get(*name) != Some(&block.bitmap));
        gone.chain(changed.map(|(_, block)| Step::Put(Box::new(object(pool, block))))).collect()
    }
}

fn blocks(state: &ClusterState, pool: &str) -> Vec<UsageBlock> {
    let of = |family| {
        let in_use = state.addresses.of_pool(pool).map(|(ip, _)| IpRange::single(ip));
        IpSet::from_ranges(family, in_use)
    };
    Family::ALL.into_iter().flat_map(|family| encode(&of(family)).collect::<Vec<_>>()).collect()
}

/// One block, one name: a long pool's name is cut, and its hash is behind.
fn name(pool: &str, base: IpAddr) -> String {
    let stem = if pool.len() <= STEM { pool.to_owned() } else { label_value(pool) };
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
        state.apply(serde_json::from_value::<spiderpool_api::crd::SpiderIPPool>(pool).unwrap());
        for ip in ips {
            let spec = json!({"address": format!("{ip}/8"), "pool": "p", "interface": "net1", "podNamespace": "n", "podName": "a", "podUID": "u"});
            let object = json!({"metadata": {"name": ip}, "spec": spec});
            state.apply(SlimAddress::from(
                serde_json::from_value::<spiderpool_api::crd::SpiderIPAddress>(object).unwrap(),
            ));
        }
        state
    }

    fn applied(stored: &mut Stored, state: &ClusterState) -> usize {
        let steps = stored.plan(state, "p");
        for step in &steps {
            match step {
                Step::Put(object) => stored.put(object),
                Step::Delete(name) => stored.delete("p", name),
            }
        }
        steps.len()
    }

    #[test]
    fn one_block_per_65536_addresses_written_when_it_changes() {
        let mut stored = Stored::default();
        assert_eq!(applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"])), 2);
        assert_eq!(applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"])), 0);
        let steps = stored.plan(&state(&["10.1.0.1", "10.1.0.2", "10.2.0.1"]), "p");
        let [Step::Put(object)] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(object.metadata.name.as_deref(), Some("p.10.1.0.0"));
        assert_eq!((object.spec.base.as_str(), object.spec.in_use), ("10.1.0.0", 2));
        assert_eq!(object.metadata.labels.as_ref().unwrap()[labels::ADDRESS_POOL], "p");
    }

    /// The write that failed may have been done, and the state may be again as it was before.
    #[test]
    fn a_block_in_doubt_is_written_again() {
        let mut stored = Stored::default();
        let before = state(&["10.1.0.1"]);
        applied(&mut stored, &before);
        stored.doubt("p", "p.10.1.0.0");
        assert!(matches!(&stored.plan(&before, "p")[..], [Step::Put(object)] if object.spec.in_use == 1));
        assert_eq!(stored.plan(&ClusterState::default(), "p"), [Step::Delete("p.10.1.0.0".into())]);
    }

    #[test]
    fn a_block_without_addresses_or_pool_goes() {
        let mut stored = Stored::default();
        applied(&mut stored, &state(&["10.1.0.1", "10.2.0.1"]));
        assert_eq!(stored.plan(&state(&["10.1.0.1"]), "p"), [Step::Delete("p.10.2.0.0".into())]);
        assert_eq!(applied(&mut stored, &ClusterState::default()), 2);
        assert_eq!(stored.pools().count(), 0);
    }

    #[test]
    fn names_of_blocks_fit_an_object() {
        let long = name(&"a".repeat(253), "ffff:ffff::".parse().unwrap());
        assert!(long.len() <= 253 && long.parse::<spiderpool_core::names::PoolName>().is_ok(), "{long}");
    }
}
