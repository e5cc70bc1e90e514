//! SpiderIPPools as agent and controller know them.
//!
//! The metadata of a pool, which a watch gives, and its spec, which may be read later, come separately: a spec is kept
//! until the generation or the UID changes. While the spec of a new generation is not read yet, the one before it
//! still says which pools are default ones and which overlap.

mod object;
mod overlaps;
mod owner;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::{ObjectMeta, PartialObjectMeta};
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_core::ip::{Family, IpRange};
use spiderpool_core::ipam::pool::{PoolConflict, shared_addresses};
use spiderpool_core::ipam::{Pool, PoolEntry};
use spiderpool_core::names::PoolName;

use crate::watch::Index;
use overlaps::Overlaps;

pub use object::{ParsedSpec, PoolObject, parse};
pub use owner::{AllocationOwner, has_ready_condition, is_marked};

/// All pools. `T` is what its user keeps beside each of them.
#[derive(Debug, Clone)]
pub struct PoolIndex<T = ()> {
    pools: BTreeMap<PoolName, IndexedPool<T>>,
    overlaps: Overlaps,
    service_cidrs: Vec<IpNet>,
}

/// What is kept of a pool.
#[derive(Debug, Clone)]
pub struct IndexedPool<T = ()> {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// `metadata.creationTimestamp`.
    created: Option<Time>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// What the index's user keeps.
    pub extra: T,
    /// The spec that was read last.
    spec: Option<ParsedSpec>,
    /// Whether that is the spec of `generation`, and the owner is known.
    is_current: bool,
    /// Who has addresses of it, as it was read last.
    owner: AllocationOwner,
    /// Whether its metadata says that SpiderIPAddresses have them.
    is_marked: bool,
    /// `metadata.resourceVersion`.
    resource_version: Option<String>,
}

impl<T> IndexedPool<T> {
    /// The spec of the pool's generation; `None` while it is not read.
    pub fn spec(&self) -> Option<&ParsedSpec> {
        self.spec.as_ref().filter(|_| self.is_current)
    }

    /// Who has addresses of it.
    pub fn owner(&self) -> AllocationOwner {
        self.owner
    }

    /// Whether its metadata says that SpiderIPAddresses have them.
    pub fn is_marked(&self) -> bool {
        self.is_marked
    }

    /// The pool if its spec has been read and is valid, also that of an earlier generation.
    fn last_valid(&self) -> Option<&Arc<Pool>> {
        self.spec.as_ref()?.as_ref().ok()
    }

    /// Whether pods get addresses from it.
    fn is_serving(&self) -> bool {
        !self.terminating && self.last_valid().is_some_and(|pool| !pool.disabled)
    }
}

impl<T> Default for PoolIndex<T> {
    fn default() -> Self {
        Self { pools: BTreeMap::new(), overlaps: Overlaps::default(), service_cidrs: Vec::new() }
    }
}

impl<T> PoolIndex<T> {
    /// The pool of this name.
    pub fn get(&self, name: &str) -> Option<&IndexedPool<T>> {
        self.pools.get(name)
    }

    /// The pool of this name for an allocation; `None` if there is none or its spec is not read.
    pub fn entry(&self, name: &PoolName) -> Option<PoolEntry> {
        let indexed = self.pools.get(name)?;
        let spec = indexed.spec()?.clone();
        let shared = self.overlaps.of_pool(name.as_str()).map(|(other, ranges)| (other, ranges.clone()));
        let conflict = spec
            .as_ref()
            .ok()
            .and_then(|pool| self.conflict(pool, indexed.owner, indexed.created.as_ref(), shared));
        Some(PoolEntry { spec, terminating: indexed.terminating, conflict })
    }

    /// Who else has addresses of a pool that need not be in the index.
    pub fn find_conflict(
        &self,
        meta: &ObjectMeta,
        pool: &Pool,
        owner: AllocationOwner,
    ) -> Option<PoolConflict> {
        let others = self.pools.values().filter_map(IndexedPool::last_valid);
        let others = others.filter(|other| other.name != pool.name);
        let shared = others.map(|other| (&other.name, shared_addresses(pool, other)));
        let shared = shared.filter(|(_, ranges)| !ranges.is_empty());
        self.conflict(pool, owner, meta.creation_timestamp.as_ref(), shared)
    }

    /// Of two pools that share addresses the older one goes on. One that does not serve is in nobody's way, and a
    /// disabled one in no need of a further reason.
    fn conflict<'a>(
        &self,
        pool: &Pool,
        owner: AllocationOwner,
        created: Option<&Time>,
        mut shared: impl Iterator<Item = (&'a PoolName, Vec<IpRange>)>,
    ) -> Option<PoolConflict> {
        if owner == AllocationOwner::Upstream {
            return Some(PoolConflict::NotImported { pool: pool.name.clone() });
        }
        let is_older = |name: &PoolName| {
            let other = self.pools.get(name).filter(|other| other.is_serving());
            let age = |created: Option<&Time>| created.map(|at| at.0);
            other.is_some_and(|other| (age(other.created.as_ref()), name) < (age(created), &pool.name))
        };
        let older = shared.find(|(name, _)| !pool.disabled && is_older(name)).map(|(older, ranges)| {
            PoolConflict::OlderPool { pool: pool.name.clone(), older: older.clone(), ranges }
        });
        older.or_else(|| PoolConflict::with_service_cidrs(pool, &self.service_cidrs))
    }

    /// The pools that share addresses with this one.
    pub fn overlapping(&self, name: &str) -> impl Iterator<Item = &PoolName> {
        self.overlaps.of_pool(name).map(|(other, _)| other)
    }

    /// The pools that pods get addresses from, as far as they are valid.
    pub fn serving(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values().filter(|pool| pool.is_serving()).filter_map(IndexedPool::last_valid)
    }

    /// The pools with `spec.default`, and their families. A family that has only invalid ones has those, so that the pods
    /// that miss them are refused by name: they would come up with one family in place of two. One whose spec does not
    /// say of which family it is, is missed where there is no other at all.
    pub fn defaults(&self) -> Vec<(PoolName, Family)> {
        let valid = self.pools.values().filter_map(IndexedPool::last_valid).filter(|pool| pool.default);
        let valid: Vec<_> = valid.map(|pool| (pool.name.clone(), pool.family())).collect();
        let has = |family: Family| valid.iter().any(|(_, of)| *of == family);
        let invalid = self.pools.iter().filter_map(|(name, indexed)| {
            let error = indexed.spec.as_ref()?.as_ref().err().filter(|error| error.default)?;
            let missed = match error.family {
                Some(family) => !has(family),
                None => valid.is_empty(),
            };
            missed.then(|| (name.clone(), error.family))
        });
        let of_all = |family: Option<Family>| family.map_or(Family::ALL.to_vec(), |family| vec![family]);
        let invalid: Vec<_> = invalid
            .flat_map(|(name, family)| of_all(family).into_iter().map(move |family| (name.clone(), family)))
            .collect();
        valid.into_iter().chain(invalid).collect()
    }

    /// All pools, and their families as far as a spec of them has been read: the webhook lets nobody change it.
    pub fn families(&self) -> impl Iterator<Item = (&PoolName, Option<Family>)> {
        let family = |pool: &IndexedPool<T>| match pool.spec.as_ref()? {
            Ok(pool) => Some(pool.family()),
            Err(error) => error.family,
        };
        self.pools.iter().map(move |(name, pool)| (name, family(pool)))
    }

    /// The pools whose spec is not read.
    pub fn unread(&self) -> BTreeSet<PoolName> {
        let unread = self.pools.iter().filter(|(_, indexed)| !indexed.is_current);
        unread.map(|(name, _)| name.clone()).collect()
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &PoolName> {
        self.pools.keys()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pools.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }
}

impl<T> PoolIndex<T> {
    /// The addresses of Services are not for pods; whether others are Services' than before.
    pub fn set_service_cidrs(&mut self, cidrs: Vec<IpNet>) -> bool {
        let changed = self.service_cidrs != cidrs;
        self.service_cidrs = cidrs;
        changed
    }

    /// The pool exists. A state that is older than the one known is ignored, and so is an object whose name is none.
    pub fn apply_metadata(&mut self, meta: &ObjectMeta, extra: T) {
        let Some(name) = pool_name(meta) else { return };
        let uid = meta.uid.clone().unwrap_or_default();
        let before = self.pools.remove(&name);
        let Some(before) = before.filter(|before| before.uid == uid) else {
            // Generations begin at 1 again in a pool that was deleted and made anew.
            self.overlaps.remove(&name);
            let indexed = IndexedPool { spec: None, is_current: false, ..indexed(meta, extra) };
            self.pools.insert(name, indexed);
            return;
        };
        let after = if meta.generation < before.generation {
            before
        } else {
            let after = indexed(meta, extra);
            let is_same = meta.generation.is_some() && meta.generation == before.generation;
            // Until a pool is marked, upstream's agents may begin to allocate from it, and its status alone says so.
            let is_owner_known = match before.owner {
                _ if after.is_marked => true,
                _ if before.is_marked => false,
                AllocationOwner::Nobody => before.resource_version == after.resource_version,
                AllocationOwner::Ours | AllocationOwner::Upstream => true,
            };
            // A mark from before a way back to upstream says nothing new.
            let is_new_mark = after.is_marked && !before.is_marked;
            let owner = if is_new_mark { AllocationOwner::Ours } else { before.owner };
            let is_current = before.is_current && is_same && is_owner_known;
            IndexedPool { spec: before.spec, is_current, owner, ..after }
        };
        self.pools.insert(name, after);
    }

    /// A list says what there is, also where it goes back in time: etcd was restored from an older snapshot, and what is
    /// known of later generations was never so. The next generation of the same number may have another spec.
    pub fn forget_later(&mut self, listed: &ObjectMeta) {
        let known = pool_name(listed).and_then(|name| self.pools.get_mut(&name));
        if let Some(known) = known.filter(|known| listed.generation < known.generation) {
            known.generation = listed.generation;
            known.is_current = false;
        }
    }

    /// The spec of a pool has been read. One of an earlier generation, or of another pool of the name, is ignored.
    pub fn apply_spec(&mut self, meta: &ObjectMeta, spec: ParsedSpec, owner: AllocationOwner) {
        let Some(name) = pool_name(meta) else { return };
        let Some(indexed) = self.pools.get_mut(&name) else { return };
        if indexed.uid != meta.uid.as_deref().unwrap_or_default() || meta.generation < indexed.generation {
            return;
        }
        indexed.generation = meta.generation;
        indexed.terminating = meta.deletion_timestamp.is_some();
        indexed.is_current = true;
        indexed.owner = owner;
        indexed.is_marked = is_marked(meta);
        indexed.resource_version.clone_from(&meta.resource_version);
        match &spec {
            Ok(pool) if !pool.disabled => {
                let others = self.pools.values().filter_map(IndexedPool::last_valid).map(AsRef::as_ref);
                self.overlaps.insert(pool, others.filter(|other| other.name != name && !other.disabled));
            }
            // Disabled pools may share addresses with each other, in any number.
            Ok(_) | Err(_) => self.overlaps.remove(&name),
        }
        if let Some(indexed) = self.pools.get_mut(&name) {
            indexed.spec = Some(spec);
        }
    }

    /// The pool does not exist any more; its name if it was there.
    pub fn remove(&mut self, name: &str) -> Option<PoolName> {
        let (name, _) = self.pools.remove_entry(name)?;
        self.overlaps.remove(&name);
        Some(name)
    }

    /// Only these pools exist.
    pub fn retain(&mut self, names: &BTreeSet<PoolName>) {
        let gone: Vec<_> = self.names().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.remove(name.as_str());
        }
    }
}

fn indexed<T>(meta: &ObjectMeta, extra: T) -> IndexedPool<T> {
    IndexedPool {
        uid: meta.uid.clone().unwrap_or_default(),
        generation: meta.generation,
        terminating: meta.deletion_timestamp.is_some(),
        created: meta.creation_timestamp.clone(),
        labels: meta.labels.clone().unwrap_or_default(),
        extra,
        spec: None,
        is_current: false,
        owner: if is_marked(meta) { AllocationOwner::Ours } else { AllocationOwner::Nobody },
        is_marked: is_marked(meta),
        resource_version: meta.resource_version.clone(),
    }
}

/// The API server gives no other names.
pub fn pool_name(meta: &ObjectMeta) -> Option<PoolName> {
    meta.name.as_deref()?.parse().ok()
}

/// Fed by metadata alone: the specs are read apart from the watch.
impl Index<PartialObjectMeta<SpiderIPPool>> for PoolIndex {
    fn apply(&mut self, pool: PartialObjectMeta<SpiderIPPool>) {
        self.apply_metadata(&pool.metadata, ());
    }

    fn delete(&mut self, pool: &PartialObjectMeta<SpiderIPPool>) {
        self.remove(pool.metadata.name.as_deref().unwrap_or_default());
    }

    fn reset(&mut self, pools: Vec<PartialObjectMeta<SpiderIPPool>>) {
        self.retain(&pools.iter().filter_map(|pool| pool_name(&pool.metadata)).collect());
        for pool in pools {
            self.forget_later(&pool.metadata);
            self.apply(pool);
        }
    }
}

#[cfg(test)]
mod tests;
