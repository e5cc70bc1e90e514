//! SpiderSubnets as their watch has them, and which of them to look at again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use kube::Resource as _;
use kube::core::DeserializeGuard;
use spiderpool_api::crd::{SpiderReservedIP, SpiderSubnet};
use spiderpool_core::ip::{Family, IpSet};
use spiderpool_core::ipam::reserved::ReservedError;
use spiderpool_core::names::PoolName;
use spiderpool_runtime::reserved::ReservedIndex;
use spiderpool_runtime::watch::Index;
use tracing::warn;

/// A subnet as it comes. One that cannot be decoded must not spoil a list of all.
pub(super) type SubnetObject = DeserializeGuard<SpiderSubnet>;

/// What of a pool matters to subnets, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolTrace {
    pub(super) pool: Arc<str>,
    /// `None` of one that is gone.
    pub(super) known: Option<TracedPool>,
}

/// A pool that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TracedPool {
    pub(super) uid: String,
    pub(super) generation: Option<i64>,
    pub(super) terminating: bool,
    /// `None` of an invalid one.
    pub(super) cidr: Option<IpNet>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) controller: Option<String>,
}

/// The subnets, and what has been seen of pools.
#[derive(Debug, Default)]
pub(super) struct SubnetIndex {
    subnets: BTreeMap<PoolName, Arc<SpiderSubnet>>,
    reserved: ReservedIndex,
    traces: HashMap<Arc<str>, TracedPool>,
    /// Pools that may shrink or go when addresses of theirs are free, by subnet.
    waiting: BTreeMap<PoolName, BTreeSet<PoolName>>,
    /// Subnets that are being planned: what waits is not known yet, and each change of a pool may be what it waits for.
    planned: BTreeSet<PoolName>,
    changed: BTreeSet<PoolName>,
}

impl SubnetIndex {
    pub(super) fn get(&self, name: &PoolName) -> Option<Arc<SpiderSubnet>> {
        self.subnets.get(name).cloned()
    }

    /// A subnet with the same CIDR, or one that overlaps it, that was there before: the webhooks admit none, but may be away.
    pub(super) fn older(&self, name: &PoolName, cidr: &IpNet) -> Option<PoolName> {
        let age = |name: &PoolName| {
            let meta = &self.subnets.get(name)?.metadata;
            Some((meta.creation_timestamp.as_ref().map(|at| at.0), name.clone()))
        };
        let overlaps = |other: &SpiderSubnet| {
            let other = other.spec.subnet.parse::<IpNet>();
            other.is_ok_and(|other| other.contains(cidr) || cidr.contains(&other))
        };
        let others = self.subnets.iter().filter(|(other, subnet)| *other != name && overlaps(subnet));
        let oldest = others.filter_map(|(other, _)| age(other)).min()?;
        (Some(&oldest) < age(name).as_ref()).then_some(oldest.1)
    }

    /// The addresses that no pool gets; an error if that cannot be told.
    pub(super) fn reserved(&self, family: Family) -> Result<IpSet, Arc<ReservedError>> {
        self.reserved.of_family(family)
    }

    /// Applies the response to a write of ours, unless the subnet is gone. The watch brings it too.
    pub(super) fn apply_written(&mut self, object: SpiderSubnet) {
        let name = object.metadata.name.as_deref().and_then(|name| name.parse::<PoolName>().ok());
        if let Some(known) = name.and_then(|name| self.subnets.get_mut(&name))
            && known.metadata.uid == object.metadata.uid
        {
            *known = Arc::new(object);
        }
    }

    /// Takes the subnets to look at again.
    pub(super) fn take_changed(&mut self) -> BTreeSet<PoolName> {
        std::mem::take(&mut self.changed)
    }

    /// The leader's state is about to be read for a plan.
    pub(super) fn begin_plan(&mut self, subnet: &PoolName) {
        self.planned.insert(subnet.clone());
    }

    /// Pools of this subnet wait for addresses to be free.
    pub(super) fn set_waiting(&mut self, subnet: &PoolName, pools: BTreeSet<PoolName>) {
        self.planned.remove(subnet);
        if pools.is_empty() {
            self.waiting.remove(subnet);
        } else {
            self.waiting.insert(subnet.clone(), pools);
        }
    }

    /// The subnets that these pools concern, if something of them has changed that matters.
    pub(super) fn changed_by(&mut self, traces: Vec<PoolTrace>) -> BTreeSet<PoolName> {
        let mut concerned = BTreeSet::new();
        for PoolTrace { pool, known } in traces {
            let before = match known.clone() {
                Some(known) => self.traces.insert(Arc::clone(&pool), known),
                None => self.traces.remove(&pool),
            };
            if before != known {
                let cidrs = [&before, &known].map(|pool| pool.as_ref().and_then(|pool| pool.cidr));
                let of_cidr = |subnet: &SpiderSubnet| {
                    let cidr = subnet.spec.subnet.parse::<IpNet>().ok();
                    cidr.is_some() && cidrs.contains(&cidr)
                };
                let subnets = self.subnets.iter().filter(|(_, subnet)| of_cidr(subnet));
                concerned.extend(subnets.map(|(name, _)| name.clone()));
            }
            let waits = self.waiting.iter().filter(|(_, pools)| pools.contains(&*pool));
            concerned.extend(waits.map(|(name, _)| name.clone()));
            concerned.extend(self.planned.iter().cloned());
        }
        concerned
    }
}

fn name_of(object: &SubnetObject) -> Option<PoolName> {
    object.meta().name.as_deref()?.parse().ok()
}

impl Index<SubnetObject> for SubnetIndex {
    fn apply(&mut self, object: SubnetObject) {
        let Some(name) = name_of(&object) else { return };
        match object.0 {
            Ok(subnet) => {
                self.subnets.insert(name.clone(), Arc::new(subnet));
            }
            Err(error) => {
                warn!(subnet = %name, %error, "SpiderSubnet does not fit its CRD, nothing is done for it");
                self.subnets.remove(&name);
            }
        }
        self.changed.insert(name);
    }

    fn delete(&mut self, object: &SubnetObject) {
        let Some(name) = name_of(object) else { return };
        self.subnets.remove(&name);
        self.changed.insert(name);
        // One that it overlapped may go on.
        self.changed.extend(self.subnets.keys().cloned());
    }

    fn reset(&mut self, objects: Vec<SubnetObject>) {
        self.changed.extend(self.subnets.keys().cloned());
        self.subnets.clear();
        for object in objects {
            self.apply(object);
        }
    }
}

/// Who waits for addresses may get some.
impl Index<SpiderReservedIP> for SubnetIndex {
    fn apply(&mut self, object: SpiderReservedIP) {
        self.reserved.apply(object);
        self.changed.extend(self.subnets.keys().cloned());
    }

    fn delete(&mut self, object: &SpiderReservedIP) {
        self.reserved.delete(object);
        self.changed.extend(self.subnets.keys().cloned());
    }

    fn reset(&mut self, objects: Vec<SpiderReservedIP>) {
        self.reserved.reset(objects);
        self.changed.extend(self.subnets.keys().cloned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subnet(name: &str, cidr: &str) -> SubnetObject {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"subnet": cidr}})).unwrap()
    }

    fn trace(pool: &str, cidr: &str, generation: i64) -> PoolTrace {
        let known = TracedPool {
            uid: "u".to_owned(),
            generation: Some(generation),
            terminating: false,
            cidr: cidr.parse().ok(),
            labels: BTreeMap::new(),
            controller: None,
        };
        PoolTrace { pool: pool.into(), known: Some(known) }
    }

    #[test]
    fn of_two_subnets_that_overlap_the_older_goes_on() {
        let made = |name: &str, cidr: &str, at: &str| -> SubnetObject {
            let metadata = json!({"name": name, "creationTimestamp": at});
            serde_json::from_value(json!({"metadata": metadata, "spec": {"subnet": cidr}})).unwrap()
        };
        let mut index = SubnetIndex::default();
        index.apply(made("b", "10.6.0.0/16", "2026-01-01T00:00:00Z"));
        index.apply(made("a", "10.6.0.0/16", "2026-01-02T00:00:00Z"));
        index.apply(made("c", "10.6.8.0/24", "2026-01-02T00:00:00Z"));
        index.apply(made("d", "10.7.0.0/16", "2026-01-03T00:00:00Z"));
        let older = |name: &str, cidr: &str| {
            index.older(&name.parse().unwrap(), &cidr.parse().unwrap()).map(|older| older.to_string())
        };
        assert_eq!(older("b", "10.6.0.0/16"), None);
        assert_eq!(older("a", "10.6.0.0/16").as_deref(), Some("b"));
        assert_eq!(older("c", "10.6.8.0/24").as_deref(), Some("b"));
        assert_eq!(older("d", "10.7.0.0/16"), None);
        index.take_changed();
        index.delete(&made("b", "10.6.0.0/16", "2026-01-01T00:00:00Z"));
        assert!(index.take_changed().contains("a"), "it is the next one");
    }

    /// Every allocation changes a pool.
    #[test]
    fn a_pool_concerns_its_subnet_when_it_changes_or_when_it_waits() {
        let mut index = SubnetIndex::default();
        index.apply(subnet("s1", "10.6.0.0/16"));
        index.apply(subnet("s2", "10.7.0.0/16"));
        let names = |found: BTreeSet<PoolName>| found.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(index.changed_by(vec![trace("a", "10.6.0.0/16", 1)])), ["s1"]);
        assert_eq!(names(index.changed_by(vec![trace("a", "10.6.0.0/16", 1)])), [""; 0]);
        assert_eq!(names(index.changed_by(vec![trace("a", "10.6.0.0/16", 2)])), ["s1"]);
        assert_eq!(names(index.changed_by(vec![trace("a", "10.7.0.0/16", 3)])), ["s1", "s2"]);
        assert_eq!(names(index.changed_by(vec![trace("x", "junk", 1)])), [""; 0]);
        let s2: PoolName = "s2".parse().unwrap();
        index.set_waiting(&s2, ["a".parse().unwrap()].into());
        assert_eq!(names(index.changed_by(vec![trace("a", "10.7.0.0/16", 3)])), ["s2"]);
        index.set_waiting(&s2, BTreeSet::new());
        index.begin_plan(&s2);
        assert_eq!(
            names(index.changed_by(vec![trace("a", "10.7.0.0/16", 3)])),
            ["s2"],
            "it is being planned"
        );
        index.set_waiting(&s2, BTreeSet::new());
        assert_eq!(names(index.changed_by(vec![trace("a", "10.7.0.0/16", 3)])), [""; 0]);
        assert_eq!(names(index.changed_by(vec![PoolTrace { pool: "a".into(), known: None }])), ["s2"]);
    }
}
