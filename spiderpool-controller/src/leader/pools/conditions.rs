//! A pool's `status.conditions`.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use spiderpool_core::ipam::PoolEntry;
use spiderpool_core::ipam::pool_condition::{PoolCondition, PoolConditionKind, pool_conditions};

use crate::leader::state::LeaderPool;

/// Longer messages are cut: the CRD takes no more, and nobody reads them.
const MAX_MESSAGE: usize = 4096;

/// What `status.conditions` should be: ours as they are now, others' as they are. A condition that says what it has
/// said keeps its time.
pub(super) fn merge(
    entry: &PoolEntry,
    indexed: &LeaderPool,
    pod_cidrs: &[IpNet],
    now: Timestamp,
) -> Vec<Condition> {
    let known = &indexed.extra.conditions;
    let is_ours = |one: &Condition| PoolConditionKind::ALL.iter().any(|kind| kind.as_str() == one.type_);
    let others = known.iter().filter(|one| !is_ours(one)).cloned();
    let ours = pool_conditions(entry, pod_cidrs).into_iter().map(|desired| {
        let before = known.iter().find(|one| one.type_ == desired.kind.as_str());
        condition(&desired, before, indexed.generation, now)
    });
    ours.chain(others).collect()
}

fn condition(
    desired: &PoolCondition,
    before: Option<&Condition>,
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let status = if desired.holds { "True" } else { "False" };
    let unchanged = before.filter(|before| before.status == status);
    // Times of the API have no fractions of seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        type_: desired.kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: desired.reason.to_owned(),
        message: desired.message.chars().take(MAX_MESSAGE).collect(),
        observed_generation: generation,
        last_transition_time: unchanged.map_or(Time(now), |before| before.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spiderpool_runtime::pools::PoolObject;
    use spiderpool_runtime::watch::Index as _;

    use super::*;
    use crate::leader::state::ClusterState;

    const OLD: &str = "2026-01-01T00:00:00Z";

    fn pool(name: &str, created: &str, ips: &str, conditions: &Value) -> PoolObject {
        let metadata = json!({"name": name, "uid": name, "generation": 3, "creationTimestamp": created});
        let spec = json!({"subnet": "10.6.0.0/24", "ips": [ips]});
        let object = json!({"metadata": metadata, "spec": spec, "status": {"conditions": conditions}});
        serde_json::from_value(object).unwrap()
    }

    fn merged(state: &ClusterState, name: &str) -> Vec<Condition> {
        let entry = state.pools.entry(&name.parse().unwrap()).unwrap();
        merge(
            &entry,
            state.pools.get(name).unwrap(),
            &state.pod_cidrs,
            "2026-02-02T02:02:02.5Z".parse().unwrap(),
        )
    }

    fn known(type_: &str, status: &str) -> Value {
        json!({
            "type": type_, "status": status, "reason": "Old", "message": "", "lastTransitionTime": OLD,
            "observedGeneration": 2,
        })
    }

    #[test]
    fn the_time_changes_with_the_status_and_others_conditions_stay() {
        let mut state = ClusterState::default();
        let conditions = json!([known("Theirs", "True"), known("Ready", "True")]);
        state.apply(pool("p", OLD, "10.6.0.1", &conditions));
        let [ready, theirs] = &merged(&state, "p")[..] else { panic!("two conditions") };
        assert_eq!((ready.reason.as_str(), ready.observed_generation), ("Valid", Some(3)));
        assert_eq!(ready.last_transition_time.0.to_string(), OLD);
        assert_eq!((theirs.type_.as_str(), theirs.reason.as_str()), ("Theirs", "Old"));
        state.apply(pool("p", OLD, "10.6.0.1", &json!([known("Ready", "False")])));
        assert_eq!(merged(&state, "p")[0].last_transition_time.0.to_string(), "2026-02-02T02:02:02Z");
    }

    /// `kubectl get sp` showed both pools healthy.
    #[test]
    fn the_newer_of_two_pools_that_overlap_names_the_older() {
        let mut state = ClusterState::default();
        state.apply(pool("new", "2026-01-01T00:00:01Z", "10.6.0.1-10.6.0.9", &json!([])));
        state.take_changes();
        let old = pool("old", OLD, "10.6.0.9", &json!([]));
        state.apply(old.clone());
        let changed = |state: &mut ClusterState| state.take_changes().pools.contains("new");
        assert!(changed(&mut state), "its condition has to be written");
        let ready = &merged(&state, "new")[0];
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "OverlapsOlderPool"));
        assert!(ready.message.contains("the older IPPool old in 10.6.0.9"), "{ready:?}");
        assert_eq!(merged(&state, "old")[0].status, "True");
        state.delete(&old);
        assert!(changed(&mut state));
        assert_eq!(merged(&state, "new")[0].status, "True");
    }

    #[test]
    fn a_changed_service_or_pod_cidr_changes_every_pool() {
        let mut state = ClusterState::default();
        state.apply(pool("p", OLD, "10.6.0.9", &json!([])));
        state.take_changes();
        let coordinator: spiderpool_api::crd::SpiderCoordinator = serde_json::from_value(json!({
            "metadata": {"name": "default"}, "spec": {},
            "status": {"phase": "Synced", "serviceCIDR": ["10.6.0.0/25"]},
        }))
        .unwrap();
        state.apply(coordinator.clone());
        assert!(state.take_changes().pools.contains("p"));
        let ready = &merged(&state, "p")[0];
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "OverlapsServiceCIDR"));
        state.apply(coordinator.clone());
        assert!(state.take_changes().pools.is_empty());
        let mut coordinator = coordinator;
        coordinator.status.as_mut().unwrap().service_cidr.clear();
        state.apply(coordinator.clone());
        assert!(state.take_changes().pools.contains("p"));
        coordinator.status.as_mut().unwrap().overlay_pod_cidr.push("10.6.0.0/25".to_owned());
        state.apply(coordinator);
        assert!(state.take_changes().pools.contains("p"));
        let [ready, in_pod_cidr] = &merged(&state, "p")[..] else { panic!("two conditions") };
        assert_eq!((ready.status.as_str(), in_pod_cidr.type_.as_str()), ("True", "PodCIDRAddresses"));
    }
}
