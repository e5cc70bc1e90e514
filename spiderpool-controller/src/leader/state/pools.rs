//! Pools, and their status as the leader last read or wrote it.

use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::core::ObjectMeta;
use spiderpool_api::annotations::IPPOOL_IP_NUMBER;
use spiderpool_api::crd::{FINALIZER, IPPoolStatus};
use spiderpool_runtime::pools::{AllocationOwner, IndexedPool, PoolIndex, PoolObject, parse};
use tracing::warn;

/// A pool as the leader knows it.
pub(crate) type LeaderPool = IndexedPool<LeaderFields>;

/// A pool's status, reduced to what tells whether another one differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StatusDigest {
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
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LeaderFields {
    /// Whether the object has the types of its CRD: nothing but the finalizer is written to one that has not.
    pub(crate) is_decodable: bool,
    /// Whether `spec.ipVersion` is set.
    pub(crate) has_version: bool,
    /// Whether it is not being deleted and has not our finalizer.
    pub(crate) needs_finalizer: bool,
    /// Whether it is being deleted and has our finalizer.
    pub(crate) is_finalizing: bool,
    /// Its status, without the conditions.
    pub(crate) reported: StatusDigest,
    /// `status.conditions`.
    pub(crate) conditions: Vec<Condition>,
    /// What controls it: kind and UID.
    pub(crate) controller: Option<(String, String)>,
    /// The annotation with the size of an application's pool.
    pub(crate) size: Option<String>,
}

impl From<&PoolObject> for LeaderFields {
    fn from(object: &PoolObject) -> Self {
        let meta = object.meta();
        let has_finalizer = meta.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        let pool = object.0.as_ref().ok();
        let status = pool.and_then(|pool| pool.status.as_ref());
        let mut owners = meta.owner_references.iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        Self {
            is_decodable: pool.is_some(),
            has_version: pool.is_none_or(|pool| pool.spec.ip_version.is_some()),
            needs_finalizer: meta.deletion_timestamp.is_none() && !has_finalizer,
            is_finalizing: meta.deletion_timestamp.is_some() && has_finalizer,
            reported: status.map(StatusDigest::from).unwrap_or_default(),
            conditions: status.map(|status| status.conditions.clone()).unwrap_or_default(),
            controller: controller.map(|owner| (owner.kind.clone(), owner.uid.clone())),
            size: meta.annotations.as_ref().and_then(|all| all.get(IPPOOL_IP_NUMBER)).cloned(),
        }
    }
}

/// Adds or replaces a pool. Its spec is parsed once per generation and owner.
pub(crate) fn insert(pools: &mut PoolIndex<LeaderFields>, object: &PoolObject) {
    let meta = object.meta();
    pools.apply_metadata(meta, LeaderFields::from(object));
    let owner = AllocationOwner::of(object);
    let indexed = meta.name.as_deref().and_then(|name| pools.get(name));
    if indexed.is_some_and(|pool| pool.spec().is_none() || pool.owner() != owner) {
        let spec = parse(object)
            .inspect_err(|error| warn!(%error, "the pool is not used and its addresses are not counted"));
        pools.apply_spec(meta, spec, owner);
    }
}

/// Whether the response to a write of ours may replace what is in the index. The watch may be ahead of it: the pool
/// may be gone, have another UID or a later generation.
pub(super) fn is_current(pools: &PoolIndex<LeaderFields>, written: &ObjectMeta) -> bool {
    pools.get(written.name.as_deref().unwrap_or_default()).is_some_and(|pool| {
        Some(&pool.uid) == written.uid.as_ref()
            && pool.terminating == written.deletion_timestamp.is_some()
            && pool.generation <= written.generation
    })
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

    #[test]
    fn a_pool_gets_the_finalizer_unless_it_is_being_deleted() {
        let needs = |metadata: Value| {
            let object = json!({"metadata": metadata, "spec": {"subnet": "10.6.0.0/16"}});
            LeaderFields::from(&serde_json::from_value::<PoolObject>(object).unwrap()).needs_finalizer
        };
        assert!(needs(json!({"name": "p", "finalizers": ["other"]})));
        assert!(!needs(json!({"name": "p", "finalizers": [FINALIZER]})));
        assert!(!needs(json!({"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"})));
    }

    /// Otherwise it could never be deleted.
    #[test]
    fn a_pool_that_cannot_be_decoded_is_finalized_too() {
        let mut pools = PoolIndex::default();
        insert(&mut pools, &object(1, &json!({"subnet": 5})));
        let pool = pools.get("p").unwrap();
        assert!(pool.extra.is_finalizing && pool.extra.has_version);
        assert!(pool.spec().unwrap().is_err());
        insert(&mut pools, &object(2, &json!({"subnet": "10.6.0.0/16"})));
        let pool = pools.get("p").unwrap();
        assert!(pool.spec().unwrap().is_ok() && !pool.extra.has_version);
    }
}
