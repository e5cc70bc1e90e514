//! A pool's status, from the addresses in use.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use spiderpool_api::crd::IPPoolStatus;
use spiderpool_core::ip::IpSet;
use spiderpool_core::ipam::Holding;
use spiderpool_runtime::pools::AllocationOwner;

use super::conditions;
use crate::leader::state::{ClusterState, LeaderPool, StatusDigest};

/// With more addresses in use only the counts are reported: an object of etcd has its limits.
pub(super) const MAX_RECORDS: usize = 5000;
/// Interval between two writes of pools' statuses.
const INTERVAL: Duration = Duration::from_millis(500);
/// Records per interval: after a larger status more time passes.
const RECORDS_PER_INTERVAL: usize = 1000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AllocationRecord<'a> {
    pod: String,
    pod_uid: &'a str,
}

/// How long no status is written after one of so many records.
pub(super) fn interval(in_use: usize) -> Duration {
    let records = if in_use > MAX_RECORDS { 0 } else { in_use };
    INTERVAL * (records.div_ceil(RECORDS_PER_INTERVAL).max(1) as u32)
}

/// The desired status.
fn status<'a>(
    usable: &IpSet,
    in_use: impl Iterator<Item = (IpAddr, Option<&'a Holding>)>,
    count: usize,
) -> IPPoolStatus {
    let records = || {
        // Keys are sorted as texts, not as addresses.
        let records: BTreeMap<String, AllocationRecord<'_>> = in_use
            .map(|(ip, holding)| {
                // An unreadable object's address is in use by an unknown pod.
                let owner = holding.map(|holding| &holding.owner);
                let pod_uid = owner.map_or("", |owner| owner.pod.uid.as_str());
                // Upstream's record of a virtual machine's pod has the machine's name.
                let pod = owner.map(|owner| owner.endpoint_name().to_string()).unwrap_or_default();
                (ip.to_string(), AllocationRecord { pod, pod_uid })
            })
            .collect();
        serde_json::to_string(&records).ok()
    };
    IPPoolStatus {
        allocated_ips: if (1..=MAX_RECORDS).contains(&count) { records() } else { None },
        total_ip_count: Some(i64::try_from(usable.len()).unwrap_or(i64::MAX)),
        allocated_ip_count: Some(i64::try_from(count).unwrap_or(i64::MAX)),
        conditions: Vec::new(),
    }
}

/// The patch after which the status is right; `None` if it is. Of an invalid pool, and of one with upstream's allocations,
/// only the conditions are written.
pub(super) fn plan(state: &ClusterState, name: &str, indexed: &LeaderPool, now: Timestamp) -> Option<Value> {
    if !indexed.extra.is_decodable {
        return None;
    }
    let entry = state.pools.entry(&name.parse().ok()?)?;
    let mut patch = Map::new();
    let conditions = conditions::merge(&entry, indexed, &state.pod_cidrs, now);
    if conditions != indexed.extra.conditions {
        patch.insert("conditions".to_owned(), json!(conditions));
    }
    // What upstream's agents have written says alone which addresses are in use.
    if let (Ok(pool), false) = (&entry.spec, indexed.owner() == AllocationOwner::Upstream) {
        let desired = status(&pool.usable, state.addresses.of_pool(name), state.addresses.count(name));
        if StatusDigest::from(&desired) != indexed.extra.reported {
            // `null` removes a field: absence means that nothing is in use.
            patch.insert("allocatedIPs".to_owned(), json!(desired.allocated_ips));
            patch.insert("totalIPCount".to_owned(), json!(desired.total_ip_count));
            patch.insert("allocatedIPCount".to_owned(), json!(desired.allocated_ip_count));
        }
    }
    (!patch.is_empty()).then(|| json!({"metadata": {"uid": indexed.uid}, "status": patch}))
}

/// The patch that sets `spec.ipVersion`, if it is absent.
pub(super) fn plan_version(indexed: &LeaderPool) -> Option<Value> {
    let pool = indexed.spec()?.as_ref().ok();
    let pool = pool.filter(|_| {
        !indexed.extra.has_version && !indexed.terminating && indexed.owner() != AllocationOwner::Upstream
    })?;
    Some(json!({"metadata": {"uid": indexed.uid}, "spec": {"ipVersion": pool.family().version()}}))
}

#[cfg(test)]
mod tests {
    use spiderpool_api::crd::SpiderIPAddress;
    use spiderpool_runtime::pools::PoolObject;
    use spiderpool_runtime::watch::Index;

    use super::*;
    use crate::leader::pools::claim::Claim;
    use crate::leader::state::SlimAddress;

    fn state(spec: &Value, status: &Value) -> ClusterState {
        let mut state = ClusterState::default();
        let pool: PoolObject = serde_json::from_value(
            json!({"metadata": {"name": "p", "uid": "u", "generation": 1}, "spec": spec, "status": status}),
        )
        .unwrap();
        state.apply(pool);
        state
    }

    fn take(state: &mut ClusterState, name: &str, net: &str, pod: &str) {
        let address: SpiderIPAddress = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"address": net, "pool": "p", "interface": "net1", "podNamespace": "ns1", "podName": pod, "podUID": format!("uid-{pod}")},
        }))
        .unwrap();
        state.apply(SlimAddress::from(address));
    }

    fn planned(state: &ClusterState) -> Option<Value> {
        plan(state, "p", state.pools.get("p").unwrap(), Timestamp::UNIX_EPOCH)
    }

    /// Other tools read it: no blanks, keys sorted as texts, exactly two members.
    #[test]
    fn records_equal_upstreams_byte_by_byte() {
        let mut state =
            state(&json!({"subnet": "172.18.40.0/24", "ips": ["172.18.40.2-172.18.40.30"]}), &Value::Null);
        take(&mut state, "172.18.40.9", "172.18.40.9/24", "web-1");
        take(&mut state, "172.18.40.10", "172.18.40.10/24", "web-0");
        let patch = planned(&state).unwrap();
        assert_eq!(
            patch["status"]["allocatedIPs"],
            r#"{"172.18.40.10":{"pod":"ns1/web-0","podUid":"uid-web-0"},"172.18.40.9":{"pod":"ns1/web-1","podUid":"uid-web-1"}}"#
        );
        assert_eq!(
            (&patch["status"]["allocatedIPCount"], &patch["status"]["totalIPCount"]),
            (&json!(2), &json!(29))
        );
        assert_eq!(patch["metadata"]["uid"], "u");
    }

    #[test]
    fn the_record_of_a_virtual_machine_has_its_name() {
        let mut state = state(&json!({"subnet": "10.0.0.0/24", "ips": ["10.0.0.1-10.0.0.9"]}), &Value::Null);
        let address: SpiderIPAddress = serde_json::from_value(json!({
            "metadata": {"name": "10.0.0.1"},
            "spec": {
                "address": "10.0.0.1/24", "pool": "p", "interface": "net1", "podNamespace": "ns1",
                "podName": "virt-launcher-db-x", "podUID": "u", "virtualMachine": "db",
            },
        }))
        .unwrap();
        state.apply(SlimAddress::from(address));
        let patch = planned(&state).unwrap();
        assert_eq!(patch["status"]["allocatedIPs"], r#"{"10.0.0.1":{"pod":"ns1/db","podUid":"u"}}"#);
    }

    #[test]
    fn ipv6_keys_are_short() {
        let mut state = state(&json!({"subnet": "fd00::/64", "ips": ["fd00::1-fd00::9"]}), &Value::Null);
        take(&mut state, "fd00-0000-0000-0000-0000-0000-0000-0001", "fd00::1/64", "a");
        let patch = planned(&state).unwrap();
        assert_eq!(patch["status"]["allocatedIPs"], r#"{"fd00::1":{"pod":"ns1/a","podUid":"uid-a"}}"#);
    }

    #[test]
    fn an_unused_pool_has_no_records_and_a_right_status_is_not_written() {
        let spec = json!({"subnet": "10.0.0.0/24", "ips": ["10.0.0.1"]});
        let patch = planned(&state(&spec, &Value::Null)).unwrap();
        let conditions = &patch["status"]["conditions"];
        let counts = json!({"allocatedIPs": null, "totalIPCount": 1, "allocatedIPCount": 0});
        let mut written = counts.clone();
        written["conditions"] = conditions.clone();
        assert_eq!(patch["status"], written);
        assert_eq!(planned(&state(&spec, &written)), None);
        written["allocatedIPs"] = json!("{}");
        // The conditions are right: they are not written again.
        assert_eq!(planned(&state(&spec, &written)).unwrap()["status"], counts);
    }

    /// Upstream's case D00017.
    #[test]
    fn the_total_ends_at_the_largest_int64() {
        let spec = json!({"subnet": "fd00::/32", "ips": ["fd00::-fd00:0:ffff:ffff:ffff:ffff:ffff:ffff"]});
        let patch = planned(&state(&spec, &Value::Null)).unwrap();
        assert_eq!(patch["status"]["totalIPCount"], json!(9_223_372_036_854_775_807_i64));
    }

    #[test]
    fn of_an_invalid_pool_the_condition_alone_is_written() {
        let state = state(&json!({"subnet": "10.0.0.1/24"}), &Value::Null);
        let patch = planned(&state).unwrap();
        let names: Vec<_> = patch["status"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["conditions"]);
        let ready = &patch["status"]["conditions"][0];
        assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("False")));
        assert_eq!((&ready["reason"], &ready["observedGeneration"]), (&json!("InvalidSpec"), &json!(1)));
        let text = "IPPool p is invalid: spec.subnet: unformatted subnet 10.0.0.1/24";
        assert!(ready["message"].as_str().unwrap().starts_with(text), "{ready}");
        assert_eq!(plan_version(state.pools.get("p").unwrap()), None);
    }

    /// They are the only record of who has which address.
    #[test]
    fn upstreams_allocations_are_not_overwritten() {
        let spec = json!({"subnet": "10.0.0.0/24", "ips": ["10.0.0.1-10.0.0.9"]});
        let records = json!({
            "allocatedIPs": r#"{"10.0.0.1":{"pod":"ns1/web","podUid":"u1"}}"#, "allocatedIPCount": 1, "totalIPCount": 9,
        });
        let upstreams = state(&spec, &records);
        let patch = planned(&upstreams).unwrap();
        let names: Vec<_> = patch["status"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["conditions"]);
        let ready = &patch["status"]["conditions"][0];
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("NotImported")));
        let pool = upstreams.pools.get("p").unwrap();
        assert_eq!(plan_version(pool), None);
        assert_eq!(Claim::of(pool), None);
        // The condition does not make it ours.
        let mut said = records.clone();
        said["conditions"] = patch["status"]["conditions"].clone();
        assert_eq!(planned(&state(&spec, &said)), None);
        // Upstream's agents have freed everything.
        said["allocatedIPs"] = json!("{}");
        let emptied = state(&spec, &said);
        assert_eq!(Claim::of(emptied.pools.get("p").unwrap()), Some(Claim { finalizer: true, mark: true }));
        assert_eq!(planned(&emptied).unwrap()["status"]["conditions"][0]["reason"], "Valid");
    }

    #[test]
    fn an_absent_version_is_derived() {
        let version = |spec: &Value| plan_version(state(spec, &Value::Null).pools.get("p").unwrap());
        let derived = version(&json!({"subnet": "fd00::/64"})).unwrap();
        assert_eq!(derived["spec"], json!({"ipVersion": 6}));
        assert_eq!(version(&json!({"subnet": "fd00::/64", "ipVersion": 6})), None);
    }

    #[test]
    fn many_records_are_written_less_often_and_too_many_not_at_all() {
        assert_eq!(interval(0), INTERVAL);
        assert_eq!(interval(1000), INTERVAL);
        assert_eq!(interval(5000), INTERVAL * 5);
        assert_eq!(interval(5001), INTERVAL);
        let usable = IpSet::empty(spiderpool_core::ip::Family::V4);
        let over = status(&usable, std::iter::empty(), MAX_RECORDS + 1);
        assert_eq!((over.allocated_ips, over.allocated_ip_count), (None, Some(5001)));
    }
}
