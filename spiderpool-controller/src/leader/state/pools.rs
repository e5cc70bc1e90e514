//! Pools, and what their status says.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use spiderpool_api::crd::{FINALIZER, IPPoolStatus, SpiderIPPool};
use spiderpool_core::ipam::{Pool, PoolError};
use spiderpool_runtime::watch::Index;
use tracing::warn;

use super::ClusterState;

/// A pool's status, reduced to what tells whether another one differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusDigest {
    allocated: Option<u64>,
    in_use: Option<i64>,
    total: Option<i64>,
}

impl From<&IPPoolStatus> for StatusDigest {
    fn from(status: &IPPoolStatus) -> Self {
        let hash = |text: &String| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        };
        Self {
            allocated: status.allocated_ips.as_ref().map(hash),
            in_use: status.allocated_ip_count,
            total: status.total_ip_count,
        }
    }
}

/// What is kept of a pool.
#[derive(Debug, Clone)]
pub struct KnownPool {
    /// Its UID.
    pub uid: String,
    /// Its spec, or what is wrong with it.
    pub pool: Result<Arc<Pool>, PoolError>,
    /// Whether `spec.ipVersion` is set.
    pub has_version: bool,
    /// Whether it is being deleted and has our finalizer.
    pub is_finalizing: bool,
    /// Its status.
    pub reported: StatusDigest,
    generation: Option<i64>,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
}

/// The pools.
#[derive(Debug, Clone, Default)]
pub struct PoolIndex(BTreeMap<Arc<str>, KnownPool>);

impl PoolIndex {
    /// The pool of this name.
    pub fn get(&self, name: &str) -> Option<&KnownPool> {
        self.0.get(name)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = Arc<str>> + '_ {
        self.0.keys().cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl ClusterState {
    /// Takes the response to a write of ours. The watch may be ahead of it: a pool that is gone, has another UID or a
    /// later generation is left as it is.
    pub fn apply_written(&mut self, object: SpiderIPPool) {
        let meta = &object.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let is_current = self.pools.get(name).is_some_and(|known| {
            Some(&known.uid) == meta.uid.as_ref()
                && known.terminating == meta.deletion_timestamp.is_some()
                && known.generation <= meta.generation
        });
        if is_current {
            self.apply(object);
        }
    }
}

impl Index<SpiderIPPool> for ClusterState {
    fn apply(&mut self, object: SpiderIPPool) {
        let meta = &object.metadata;
        let name = self.interner.intern(meta.name.as_deref().unwrap_or_default());
        let uid = meta.uid.clone().unwrap_or_default();
        let terminating = meta.deletion_timestamp.is_some();
        let reported = object.status.as_ref().map(StatusDigest::from).unwrap_or_default();
        let has_finalizer = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        let state = (meta.generation, terminating);
        let known = self.pools.0.get(&name).filter(|known| {
            known.uid == uid && state.0.is_some() && (known.generation, known.terminating) == state
        });
        // The spec is parsed once per generation.
        let pool = match known {
            Some(known) => known.pool.clone(),
            None => Pool::try_from(&object)
                .map(Arc::new)
                .inspect_err(|error| warn!(%error, "the pool is not used and its addresses are not counted")),
        };
        let known = KnownPool {
            uid,
            pool,
            has_version: object.spec.ip_version.is_some(),
            is_finalizing: terminating && has_finalizer,
            reported,
            generation: state.0,
            terminating,
        };
        self.pools.0.insert(Arc::clone(&name), known);
        self.changes.pools.insert(name);
    }

    fn delete(&mut self, object: &SpiderIPPool) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if let Some((name, _)) = self.pools.0.remove_entry(name) {
            self.changes.pools.insert(name);
        }
    }

    fn reset(&mut self, objects: Vec<SpiderIPPool>) {
        let before: Vec<_> = self.pools.names().collect();
        self.changes.pools.extend(before);
        self.pools.0.clear();
        for object in objects {
            self.apply(object);
        }
        self.mark_all_changed();
    }
}
