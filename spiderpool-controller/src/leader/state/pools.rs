//! Pools, and their status as the leader last read or wrote it.

use std::hash::{DefaultHasher, Hash, Hasher};

use kube::Resource as _;
use kube::core::DeserializeGuard;
use spiderpool_api::crd::{FINALIZER, IPPoolStatus, SpiderIPPool};
use spiderpool_runtime::pools::{IndexedPool, PoolObject, parse, pool_name};
use spiderpool_runtime::watch::Index;
use tracing::warn;

use super::ClusterState;

/// A pool as the leader knows it.
pub type LeaderPool = IndexedPool<LeaderFields>;

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

/// What the leader writes to a pool's object, as it is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderFields {
    /// Whether `spec.ipVersion` is set.
    pub has_version: bool,
    /// Whether it is being deleted and has our finalizer.
    pub is_finalizing: bool,
    /// Its status.
    pub reported: StatusDigest,
}

impl From<&PoolObject> for LeaderFields {
    fn from(object: &PoolObject) -> Self {
        let meta = object.meta();
        let has_finalizer = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        // Nothing but the finalizer is written to a pool that cannot be decoded.
        let pool = object.0.as_ref().ok();
        Self {
            has_version: pool.is_none_or(|pool| pool.spec.ip_version.is_some()),
            is_finalizing: meta.deletion_timestamp.is_some() && has_finalizer,
            reported: pool.and_then(|pool| pool.status.as_ref()).map(StatusDigest::from).unwrap_or_default(),
        }
    }
}

impl ClusterState {
    /// Takes the response to a write of ours. The watch may be ahead of it: a pool that is gone, has another UID or a
    /// later generation is left as it is.
    pub fn apply_written(&mut self, object: SpiderIPPool) {
        let meta = &object.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let is_current = self.pools.get(name).is_some_and(|pool| {
            Some(&pool.uid) == meta.uid.as_ref()
                && pool.terminating == meta.deletion_timestamp.is_some()
                && pool.generation <= meta.generation
        });
        if is_current {
            self.apply(DeserializeGuard(Ok(object)));
        }
    }
}

impl Index<PoolObject> for ClusterState {
    fn apply(&mut self, object: PoolObject) {
        let meta = object.meta();
        let Some(name) = pool_name(meta) else { return };
        self.pools.apply_metadata(meta, LeaderFields::from(&object));
        // The spec is parsed once per generation.
        if self.pools.get(name.as_str()).is_some_and(|pool| pool.spec().is_none()) {
            let spec = parse(&object)
                .inspect_err(|error| warn!(%error, "the pool is not used and its addresses are not counted"));
            self.pools.apply_spec(meta, spec);
        }
        self.changes.pools.insert(name.into());
    }

    fn delete(&mut self, object: &PoolObject) {
        let name = self.pools.remove(object.meta().name.as_deref().unwrap_or_default());
        self.changes.pools.extend(name.map(Into::into));
    }

    fn reset(&mut self, objects: Vec<PoolObject>) {
        self.changes.pools.extend(self.pools.names().cloned().map(Into::into));
        self.pools.retain(&objects.iter().filter_map(|object| pool_name(object.meta())).collect());
        for object in objects {
            self.apply(object);
        }
        self.mark_all_changed();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(generation: i64, spec: &Value) -> PoolObject {
        let metadata = json!({
            "name": "p", "uid": "u", "generation": generation, "finalizers": [FINALIZER],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        });
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    /// Otherwise it could never be deleted.
    #[test]
    fn a_pool_that_cannot_be_decoded_is_finalized_too() {
        let mut state = ClusterState::default();
        state.reset(vec![object(1, &json!({"subnet": 5}))]);
        let pool = state.pools.get("p").unwrap();
        assert!(pool.extra.is_finalizing && pool.extra.has_version);
        assert!(pool.spec().unwrap().is_err());
        state.apply(object(2, &json!({"subnet": "10.6.0.0/16"})));
        let pool = state.pools.get("p").unwrap();
        assert!(pool.spec().unwrap().is_ok() && !pool.extra.has_version);
    }
}
