//! Whose allocations a pool has. Upstream's agents keep theirs in the pool's status alone, where our leader writes a view
//! of ours: a pool that is not known to be served by SpiderIPAddresses and has any is upstream's. The mark outlives a way
//! back to upstream, whose programs replace the status as a whole: our conditions are gone then.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::core::ObjectMeta;
use serde_json::{Map, Value};
use spiderpool_api::annotations::{POOL_ALLOCATIONS, POOL_ALLOCATIONS_ADDRESSES};
use spiderpool_core::ipam::pool_condition::{INVALID_SPEC, NOT_IMPORTED, PoolConditionKind};

use super::object::PoolObject;

/// Who has addresses of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocationOwner {
    /// SpiderIPAddresses: the pool is marked, or an earlier leader has served it.
    Ours,
    /// Nobody, as far as the status says.
    Nobody,
    /// Upstream's agents.
    Upstream,
}

impl AllocationOwner {
    /// Who has addresses of this pool.
    pub fn of(object: &PoolObject) -> Self {
        let status = object.0.as_ref().ok().and_then(|pool| pool.status.as_ref());
        let conditions = status.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let allocated = status.and_then(|status| status.allocated_ips.as_deref());
        // With the records that our leader writes there is always the condition.
        let is_marked_and_served = is_marked(object.meta()) && has_ready_condition(object);
        if is_marked_and_served || conditions.iter().any(is_of_served_pool) {
            Self::Ours
        } else if allocated.is_some_and(has_records) {
            Self::Upstream
        } else if is_marked(object.meta()) {
            Self::Ours
        } else {
            Self::Nobody
        }
    }
}

/// Whether the pool has the mark that its allocations are SpiderIPAddresses.
pub fn is_marked(meta: &ObjectMeta) -> bool {
    let mark = meta.annotations.as_ref().and_then(|annotations| annotations.get(POOL_ALLOCATIONS));
    mark.is_some_and(|mark| mark == POOL_ALLOCATIONS_ADDRESSES)
}

/// Whether our leader has written the pool's status: upstream writes no conditions.
pub fn has_ready_condition(object: &PoolObject) -> bool {
    let status = object.0.as_ref().ok().and_then(|pool| pool.status.as_ref());
    status.is_some_and(|status| status.conditions.iter().any(is_ready_condition))
}

fn is_ready_condition(condition: &Condition) -> bool {
    condition.type_ == PoolConditionKind::Ready.as_str()
}

/// Ours on a pool that is not served have one of two reasons.
fn is_of_served_pool(condition: &Condition) -> bool {
    is_ready_condition(condition) && ![INVALID_SPEC, NOT_IMPORTED].contains(&condition.reason.as_str())
}

/// What cannot be read is not known to be nothing.
fn has_records(allocated: &str) -> bool {
    let records = serde_json::from_str::<Option<Map<String, Value>>>(allocated);
    !allocated.trim().is_empty()
        && records.map_or(true, |records| records.is_some_and(|records| !records.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(annotations: &Value, status: &Value, expected: AllocationOwner) {
        let metadata = json!({"name": "p", "annotations": annotations});
        let object = json!({"metadata": metadata, "spec": {"subnet": "10.6.0.0/24"}, "status": status});
        let object: PoolObject = serde_json::from_value(object).unwrap();
        assert!(object.0.is_ok());
        assert_eq!(AllocationOwner::of(&object), expected, "{annotations} {status}");
    }

    #[test]
    fn allocations_in_the_status_of_a_pool_without_mark_are_upstreams() {
        let records = r#"{"10.6.0.1":{"pod":"ns1/web","podUid":"u"}}"#;
        let used = json!({"allocatedIPs": records, "allocatedIPCount": 1, "totalIPCount": 9});
        check(&json!({}), &used, AllocationOwner::Upstream);
        check(
            &json!({"other": "SpiderIPAddress"}),
            &json!({"allocatedIPs": "{\"cut"}),
            AllocationOwner::Upstream,
        );
        let marked = json!({POOL_ALLOCATIONS: POOL_ALLOCATIONS_ADDRESSES});
        check(&marked, &used, AllocationOwner::Upstream);
        check(&marked, &json!({"allocatedIPCount": 0, "totalIPCount": 9}), AllocationOwner::Ours);
        for empty in [json!(null), json!({}), json!({"allocatedIPs": "{}"}), json!({"allocatedIPs": "null"})]
        {
            check(&json!({}), &empty, AllocationOwner::Nobody);
        }
    }

    /// Its mark may be lost: the object was replaced by one of a backup.
    #[test]
    fn a_pool_that_a_leader_has_served_stays_ours() {
        let owner = |annotations: Value, reason: &str, expected| {
            let ready = json!({
                "type": "Ready", "status": "False", "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            let status = json!({"allocatedIPs": r#"{"10.6.0.1":{}}"#, "conditions": [ready]});
            check(&annotations, &status, expected);
        };
        owner(json!({}), "Valid", AllocationOwner::Ours);
        owner(json!({}), "OverlapsOlderPool", AllocationOwner::Ours);
        owner(json!({}), NOT_IMPORTED, AllocationOwner::Upstream);
        owner(json!({}), INVALID_SPEC, AllocationOwner::Upstream);
        // Somebody has marked it: nobody uses upstream's allocations any more.
        let marked = json!({POOL_ALLOCATIONS: POOL_ALLOCATIONS_ADDRESSES});
        owner(marked, NOT_IMPORTED, AllocationOwner::Ours);
    }
}
