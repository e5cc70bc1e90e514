//! A StatefulSet, reduced to what says which pods it has while it is decoded.

use k8s_openapi::api::apps::v1 as k8s;
use kube::core::{ApiResource, NotUsed, Object};
use kube::{Api, Client};
use serde::Deserialize;
use spiderpool_core::ipam::StatefulSetScale;

/// What is read of a StatefulSet's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StatefulSetSpec {
    /// The API server makes it 1 where it is left out.
    replicas: Option<i64>,
    ordinals: Option<Ordinals>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Ordinals {
    start: i64,
}

/// A StatefulSet as it is decoded.
pub type StatefulSetObject = Object<StatefulSetSpec, NotUsed>;

/// Those of a namespace.
pub fn stateful_sets(client: Client, namespace: &str) -> Api<StatefulSetObject> {
    Api::namespaced_with(client, namespace, &ApiResource::erase::<k8s::StatefulSet>(&()))
}

/// Those of all namespaces.
pub fn all_stateful_sets(client: Client) -> Api<StatefulSetObject> {
    Api::all_with(client, &ApiResource::erase::<k8s::StatefulSet>(&()))
}

/// What it says of its pods.
pub fn scale(set: &StatefulSetObject) -> StatefulSetScale {
    let number = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
    StatefulSetScale {
        start: set.spec.ordinals.as_ref().map_or(0, |ordinals| number(ordinals.start)),
        replicas: set.spec.replicas.map_or(1, number),
        terminating: set.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(spec: &Value, deletion: Option<&str>, expect: (u32, u32, bool)) {
        let metadata = json!({"name": "web", "deletionTimestamp": deletion});
        let object = json!({"metadata": metadata, "spec": spec, "status": {"replicas": 9}});
        let StatefulSetScale { start, replicas, terminating } =
            scale(&serde_json::from_value(object).unwrap());
        assert_eq!((start, replicas, terminating), expect);
    }

    #[test]
    fn the_spec_and_a_deletion_decide() {
        check(&json!({"replicas": 3}), None, (0, 3, false));
        check(&json!({"replicas": 3, "ordinals": {"start": 5}}), None, (5, 3, false));
        check(&json!({"replicas": 0, "ordinals": {}}), Some("2026-01-01T00:00:00Z"), (0, 0, true));
        check(&json!({}), None, (0, 1, false));
    }
}
