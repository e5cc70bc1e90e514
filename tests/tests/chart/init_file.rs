//! The file from which spiderpool-init makes the default objects: the values arrive in it as they are.

use serde_json::{Value, json};

use crate::render::{find, objects, parse};

fn init_file(values: &[&str]) -> Value {
    let objects = objects(values);
    let text = find(&objects, "ConfigMap", "spiderpool-init")["data"]["init.yml"].as_str().unwrap();
    // Nothing to make is an empty file.
    parse(text).into_iter().next().unwrap_or_default()
}

#[test]
fn every_setting_of_the_coordinator_is_a_field_of_its_spec() {
    let file = init_file(&[
        "--set=coordinator.txQueueLen=1000000,coordinator.ebpf.routeHints=never,coordinator.ebpf.nodeLink=node",
    ]);
    assert_eq!(
        file["coordinator"],
        json!({"name": "default", "spec": {
            "mode": "auto", "podCIDRType": "auto", "tunePodRoutes": true, "hijackCIDR": ["169.254.0.0/16"],
            "policyRoutes": [], "podDefaultRouteNIC": "", "podMACPrefix": "", "podRPFilter": 0,
            "txQueueLen": 1_000_000, "vethLinkAddress": "", "vethMTU": 1500, "dataplane": "ebpf",
            "ebpf": {"routeHints": "never", "nodeLink": "node"},
        }})
    );
    assert_eq!((&file["ipv4Pool"], &file["ipv6Pool"]), (&Value::Null, &Value::Null));
    assert_eq!(init_file(&["--set=coordinator.enabled=false"])["coordinator"], Value::Null);
}

#[test]
fn pools_are_those_that_are_asked_for() {
    let file = init_file(&[
        "--set=clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4Subnet=10.66.0.0/16",
        "--set=clusterDefaultPool.ipv4IPRanges={10.66.0.10-10.66.0.20,10.66.0.30}",
        "--set=clusterDefaultPool.ipv4Gateway=10.66.0.1",
    ]);
    assert_eq!(
        file["ipv4Pool"],
        json!({"name": "default-v4-ippool", "subnet": "10.66.0.0/16", "gateway": "10.66.0.1",
            "ipRanges": ["10.66.0.10-10.66.0.20", "10.66.0.30"]})
    );
    assert_eq!(file["ipv6Pool"], Value::Null);
    let unnamed = ["--set=clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4IPPoolName=,\
                    clusterDefaultPool.ipv4Subnet=10.66.0.0/16"];
    assert_eq!(init_file(&unnamed)["ipv4Pool"], Value::Null);
}

/// Upstream makes the subnets with the pools, or without.
#[test]
fn subnets_are_made_where_pools_belong_to_subnets() {
    let pool = ["--set=clusterDefaultPool.installIPv4IPPool=true,clusterDefaultPool.ipv4Subnet=10.66.0.0/16"];
    let file = |more: &str| init_file(&[&pool[..], &[more]].concat())["ipv4Pool"].clone();
    let of = |name: &str, subnet: &str| json!({"name": name, "subnet": "10.66.0.0/16", "gateway": "", "ipRanges": [], "subnetName": subnet});
    let on = "--set=ipam.spiderSubnet.enable=true";
    assert_eq!(file(on), of("default-v4-ippool", "default-v4-subnet"));
    let alone = format!("{on},clusterDefaultPool.ipv4IPPoolName=,clusterDefaultPool.ipv4SubnetName=s");
    assert_eq!(file(&alone), of("", "s"));
    let none = format!("{on},clusterDefaultPool.ipv4SubnetName=");
    assert_eq!(file(&none)["subnetName"], Value::Null);
}

/// The agents are started again where their file changes, and they read nothing of this one.
#[test]
fn a_changed_default_object_restarts_no_agent() {
    let checksum = |values: &[&str]| {
        let annotations = find(&objects(values), "DaemonSet", "spiderpool-agent")["spec"]["template"]["metadata"]
            ["annotations"]
            .clone();
        annotations["checksum/config"].as_str().unwrap().to_owned()
    };
    assert_eq!(checksum(&[]), checksum(&["--set=coordinator.mode=overlay"]));
}
