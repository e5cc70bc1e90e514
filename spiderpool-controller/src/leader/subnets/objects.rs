//! What is written: of subnets their status, and pools.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use spiderpool_api::annotations::IPPOOL_IP_NUMBER;
use spiderpool_api::crd::{FINALIZER, SpiderSubnet, SubnetStatus};
use spiderpool_api::labels::{IPPOOL_CIDR, OWNER_SUBNET, SUBNET_CIDR};
use spiderpool_core::admission::ranges::subnet_label;
use spiderpool_core::ip::IpSet;
use spiderpool_core::ipam::Pool;
use spiderpool_core::ipam::address_name::label_value;
use spiderpool_core::subnet::application::PoolPurpose;
use spiderpool_core::subnet::plan::AutoPool;
use spiderpool_core::subnet::{ControlledPools, Subnet};

/// The status of a subnet whose pools have these addresses.
pub(super) fn status(subnet: &Subnet, records: &ControlledPools) -> SubnetStatus {
    let count = |count: u128| Some(i64::try_from(count).unwrap_or(i64::MAX));
    let given = records.0.values().fold(0_u128, |all, pool| all.saturating_add(pool.ips.len()));
    SubnetStatus {
        controlled_ip_pools: records.text(),
        total_ip_count: count(subnet.usable.len()),
        allocated_ip_count: count(given),
    }
}

/// Replaces the status of a subnet as it was read, and of no later one.
pub(super) fn status_patch(object: &SpiderSubnet, status: &SubnetStatus) -> Value {
    let SubnetStatus { controlled_ip_pools, total_ip_count, allocated_ip_count } = status;
    json!({
        "metadata": {"resourceVersion": object.metadata.resource_version},
        "status": {
            "controlledIPPools": controlled_ip_pools, "totalIPCount": total_ip_count,
            "allocatedIPCount": allocated_ip_count,
        },
    })
}

/// What a subnet lacks of its finalizer, its label and its version; `None` if nothing.
pub(super) fn completion_patch(object: &SpiderSubnet, subnet: &Subnet) -> Option<Value> {
    let meta = &object.metadata;
    if meta.deletion_timestamp.is_some() {
        return None;
    }
    let mut metadata = serde_json::Map::new();
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
        metadata.insert("finalizers".to_owned(), json!(finalizers));
    }
    let label = cidr_label(&subnet.subnet);
    let has = meta.labels.as_ref().and_then(|labels| labels.get(SUBNET_CIDR));
    if let Some(label) = label.filter(|label| has != Some(label)) {
        metadata.insert("labels".to_owned(), json!({ SUBNET_CIDR: label }));
    }
    let version = object.spec.ip_version.is_none().then(|| subnet.family().version());
    if metadata.is_empty() && version.is_none() {
        return None;
    }
    metadata.insert("resourceVersion".to_owned(), json!(meta.resource_version));
    let mut patch = json!({ "metadata": metadata });
    if let Some(version) = version {
        patch["spec"] = json!({"ipVersion": version});
    }
    Some(patch)
}

/// A subnet in a label; that of `::/64` is no label's value.
fn cidr_label(cidr: &IpNet) -> Option<String> {
    Some(subnet_label(cidr)).filter(|label| label.starts_with(|first: char| first.is_ascii_alphanumeric()))
}

/// What makes a subnet the controller of a pool.
fn owner(object: &SpiderSubnet) -> OwnerReference {
    OwnerReference {
        api_version: SpiderSubnet::api_version(&()).into_owned(),
        kind: SpiderSubnet::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn ranges(ips: &IpSet) -> Vec<String> {
    ips.ranges().map(|range| range.to_string()).collect()
}

/// A new pool for an application.
pub(super) fn pool(object: &SpiderSubnet, subnet: &Subnet, purpose: &PoolPurpose, pool: &AutoPool) -> Value {
    let mut labels = pool.labels.clone();
    labels.extend(cidr_label(&subnet.subnet).map(|label| (IPPOOL_CIDR.to_owned(), label)));
    json!({
        "apiVersion": SpiderSubnet::api_version(&()), "kind": "SpiderIPPool",
        "metadata": {
            "name": pool.name.as_str(), "labels": labels, "finalizers": [FINALIZER],
            "annotations": {IPPOOL_IP_NUMBER: pool.size}, "ownerReferences": [owner(object)],
        },
        "spec": {
            "ipVersion": subnet.family().version(), "subnet": subnet.subnet.to_string(), "ips": ranges(&pool.ips),
            "gateway": subnet.gateway.map(|gateway| gateway.to_string()), "routes": object.spec.routes,
            "podAffinity": {"matchLabels": purpose.application.pod_labels()},
        },
    })
}

/// What changes of a pool that was read at this version.
pub(super) fn pool_patch(pool: &AutoPool, resource_version: Option<&str>) -> Value {
    json!({
        "metadata": {
            "resourceVersion": resource_version, "labels": pool.labels,
            "annotations": {IPPOOL_IP_NUMBER: pool.size},
        },
        // What is excluded would be no address of it, however often it grows.
        "spec": {"ips": ranges(&pool.ips), "excludeIPs": null},
    })
}

/// The subnet becomes a pool's controller. A pool without gateway gets the subnet's, unless that is one of its addresses; one
/// whose routes are absent gets the subnet's, where an empty list says that it is to have none.
pub(super) fn adoption_patch(object: &SpiderSubnet, subnet: &Subnet, read: &Value, pool: &Pool) -> Value {
    let meta = &read["metadata"];
    let others = meta["ownerReferences"].as_array().into_iter().flatten();
    // Of an object there is one controller.
    let others = others.filter(|owner| owner["controller"] != json!(true));
    let owners: Vec<Value> = others.cloned().chain([json!(owner(object))]).collect();
    let mut patch = json!({
        "metadata": {
            "resourceVersion": meta["resourceVersion"], "ownerReferences": owners,
            "labels": {OWNER_SUBNET: label_value(subnet.name.as_str())},
        },
    });
    let gateway = subnet.gateway.filter(|gateway| !pool.usable.contains(*gateway));
    if pool.gateway.is_none()
        && let Some(gateway) = gateway
    {
        patch["spec"]["gateway"] = json!(gateway.to_string());
    }
    if read["spec"]["routes"].is_null() && !object.spec.routes.is_empty() {
        patch["spec"]["routes"] = json!(object.spec.routes);
    }
    patch
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use spiderpool_api::crd::SpiderIPPool;
    use spiderpool_core::ip::Family;
    use spiderpool_core::subnet::Application;
    use spiderpool_core::subnet::status::ControlledPool;

    use super::*;

    fn subnet() -> (SpiderSubnet, Subnet) {
        let object: SpiderSubnet = serde_json::from_value(json!({
            "metadata": {"name": "s1", "uid": "u", "resourceVersion": "7"},
            "spec": {
                "subnet": "10.6.0.0/16", "ips": ["10.6.0.10-10.6.0.19"], "gateway": "10.6.0.1",
                "routes": [{"dst": "10.0.0.0/8", "gw": "10.6.0.2"}],
            },
        }))
        .unwrap();
        let subnet = Subnet::try_from(&object).unwrap();
        (object, subnet)
    }

    fn auto_pool(ips: &str) -> (PoolPurpose, AutoPool) {
        let application = Application::new("apps/v1", "Deployment", "ns1", "web");
        let nic = "eth0".parse().unwrap();
        let purpose = PoolPurpose { application, uid: "x-12345".into(), nic, family: Family::V4 };
        let ips = IpSet::from_ranges(Family::V4, [ips.parse().unwrap()]);
        let (name, labels) = (purpose.pool_name().parse().unwrap(), purpose.labels("s1", true));
        (purpose, AutoPool { name, ips, labels, size: "+1".to_owned() })
    }

    #[test]
    fn a_pool_that_is_made_is_valid_and_the_subnets() {
        let (object, subnet) = subnet();
        let (purpose, planned) = auto_pool("10.6.0.10-10.6.0.12");
        let made: SpiderIPPool = serde_json::from_value(pool(&object, &subnet, &purpose, &planned)).unwrap();
        let parsed = Pool::try_from(&made).unwrap();
        assert_eq!((parsed.usable, parsed.routes.len()), (planned.ips, 1));
        assert_eq!(parsed.gateway, subnet.gateway);
        let affinity = parsed.affinities.pod.unwrap();
        assert!(affinity.matches(&purpose.application.pod_labels()));
        let owner = &made.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.name.as_str(), owner.uid.as_str(), owner.controller), ("s1", "u", Some(true)));
        assert_eq!(made.metadata.labels.unwrap()[IPPOOL_CIDR], "10-6-0-0-16");
    }

    #[test]
    fn a_status_counts_what_pools_have() {
        let (object, subnet) = subnet();
        let mut records = ControlledPools::default();
        let none = status(&subnet, &records);
        assert_eq!((none.controlled_ip_pools, none.allocated_ip_count), (None, Some(0)));
        let ips = auto_pool("10.6.0.10-10.6.0.12").1.ips;
        records.0.insert("a".to_owned(), ControlledPool { ips, application: None });
        let status = status(&subnet, &records);
        assert_eq!((status.total_ip_count, status.allocated_ip_count), (Some(10), Some(3)));
        let patch = status_patch(&object, &status);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["status"]["controlledIPPools"], r#"{"a":{"ips":["10.6.0.10-10.6.0.12"]}}"#);
    }

    #[test]
    fn a_subnet_is_completed_once() {
        let (mut object, subnet) = subnet();
        let patch = completion_patch(&object, &subnet).unwrap();
        assert_eq!(patch["spec"]["ipVersion"], 4);
        assert_eq!(patch["metadata"]["labels"][SUBNET_CIDR], "10-6-0-0-16");
        object.spec.ip_version = Some(4);
        object.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        object.metadata.labels = Some([(SUBNET_CIDR.to_owned(), "10-6-0-0-16".to_owned())].into());
        assert_eq!(completion_patch(&object, &subnet), None);
    }

    #[track_caller]
    fn check_adoption(spec: &Value, expect: &Value) {
        let (object, subnet) = subnet();
        let former = json!({"kind": "SpiderSubnet", "uid": "old", "controller": true, "name": "s0", "apiVersion": "v"});
        let other = json!({"kind": "Node", "uid": "n", "name": "n", "apiVersion": "v1"});
        let read = json!({
            "metadata": {"name": "p", "resourceVersion": "9", "ownerReferences": [former, other.clone()]}, "spec": spec,
        });
        let pool: SpiderIPPool = serde_json::from_value(read.clone()).unwrap();
        let patch = adoption_patch(&object, &subnet, &read, &Arc::new(Pool::try_from(&pool).unwrap()));
        let owners = patch["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!((owners.len(), &owners[0], &owners[1]["uid"]), (2, &other, &json!("u")));
        assert_eq!(patch["metadata"]["labels"][OWNER_SUBNET], "s1");
        assert_eq!(&patch["spec"], expect);
    }

    #[test]
    fn a_pool_inherits_what_it_has_not() {
        let routes = json!([{"dst": "10.0.0.0/8", "gw": "10.6.0.2"}]);
        let cidr = "10.6.0.0/16";
        check_adoption(&json!({"subnet": cidr}), &json!({"gateway": "10.6.0.1", "routes": routes}));
        check_adoption(&json!({"subnet": cidr, "gateway": "10.6.0.9", "routes": []}), &Value::Null);
        check_adoption(&json!({"subnet": cidr, "ips": ["10.6.0.1"], "routes": []}), &Value::Null);
    }
}
