//! Pools, and what their objects show of their use.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use spiderpool_api::crd::{FINALIZER, IPPoolStatus, SpiderIPPool};
use spiderpool_core::ipam::{Pool, PoolError};
use spiderpool_runtime::watch::Index;
use tracing::warn;

use super::World;

/// A status, reduced to what tells whether another one differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViewPrint {
    allocated: Option<u64>,
    in_use: Option<i64>,
    total: Option<i64>,
}

impl From<&IPPoolStatus> for ViewPrint {
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
    pub pool: Result<Pool, PoolError>,
    /// Whether `spec.ipVersion` is set.
    pub has_version: bool,
    /// Whether it is being deleted and waits for us.
    pub is_held_back: bool,
    /// What its status says.
    pub shown: ViewPrint,
    generation: Option<i64>,
    terminating: bool,
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

impl World {
    /// What we wrote, as the answer has it. The watch may be ahead of the answer: what it knows of a pool that is gone,
    /// another or of a later generation stays.
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

impl Index<SpiderIPPool> for World {
    fn apply(&mut self, object: SpiderIPPool) {
        let meta = &object.metadata;
        let name = self.names.get(meta.name.as_deref().unwrap_or_default());
        let uid = meta.uid.clone().unwrap_or_default();
        let terminating = meta.deletion_timestamp.is_some();
        let shown = object.status.as_ref().map(ViewPrint::from).unwrap_or_default();
        let has_finalizer = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        let state = (meta.generation, terminating);
        let known = self.pools.0.get(&name).filter(|known| {
            known.uid == uid && state.0.is_some() && (known.generation, known.terminating) == state
        });
        // A status that we wrote changes nothing.
        let pool = match known {
            Some(known) => known.pool.clone(),
            None => Pool::try_from(&object)
                .inspect_err(|error| warn!(%error, "the pool is not used and its addresses are not counted")),
        };
        let known = KnownPool {
            uid,
            pool,
            has_version: object.spec.ip_version.is_some(),
            is_held_back: terminating && has_finalizer,
            shown,
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
        self.suspect_all();
    }
}
