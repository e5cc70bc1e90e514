//! The agent as owner of its node's maps and programs: what changes in the cluster reaches running pods, and a
//! restart finds what it left.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use spiderpool_tests::agent::Agent;
use spiderpool_tests::cluster::{Cluster, spec};
use spiderpool_tests::counters;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::topology::{Node, addresses};
use spiderpool_tests::{poll, privilege};

const LIMIT: Duration = Duration::from_secs(10);
/// What a changed Service CIDR may take, kubectl included.
const SOON: Duration = Duration::from_secs(1);

/// One cluster for all tests, one test at a time: some of them restart its agent.
fn cluster(test: &str) -> Option<MutexGuard<'static, Cluster>> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    if !privilege::root_or_skip(test) {
        return None;
    }
    let start = || Mutex::new(Cluster::start(1, |_| ()).unwrap());
    Some(CLUSTER.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner))
}

fn has_cidr(node: &Node, cidr: &str) -> bool {
    counters::cidrs(node).unwrap().iter().any(|entry| entry.cidr == cidr)
}

fn has_route(pod: &Pod, dst: &str) -> bool {
    !pod.place.output("ip", &["route", "show", "table", "main", dst]).unwrap().is_empty()
}

/// How many of the NIC ids have an entry in the map `nics`.
fn in_use(node: &Node, ids: &BTreeMap<String, u16>) -> usize {
    let map = format!("{}/nics", counters::PINS);
    let role = |id: &u16| {
        let [low, high] = id.to_le_bytes().map(|byte| byte.to_string());
        let arguments = ["-j", "map", "lookup", "pinned", &map, "key", &low, &high, "0", "0"];
        let entry: Value = serde_json::from_str(&node.output("bpftool", &arguments).unwrap()).unwrap();
        entry["formatted"]["value"]["role"].as_u64().unwrap()
    };
    ids.values().filter(|id| role(id) != 0).count()
}

fn until(what: &str, limit: Duration, check: impl Fn() -> bool) {
    poll::until(what, limit, || {
        ensure!(check(), "not so");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_changed_service_cidr_reaches_map_and_routes_of_a_running_pod() {
    let Some(cluster) = cluster("a_changed_service_cidr") else { return };
    let (plane, node) = (&cluster.topology.plane, &cluster.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("services", DefaultRoute::Net1)).unwrap();
    let [v4, v6] = addresses::SERVICES;
    let new = "10.199.0.0/16";
    assert!(has_cidr(node, v4) && has_route(&pod, v4));
    assert!(!has_cidr(node, new));
    cluster.set_service_cidrs(&[v4, v6, new]).unwrap();
    until("the new CIDR", SOON, || has_cidr(node, new) && has_route(&pod, new));
    cluster.set_service_cidrs(&[v4, v6]).unwrap();
    until("the old CIDRs", SOON, || !has_cidr(node, new) && !has_route(&pod, new));
    assert!(has_cidr(node, v4) && has_route(&pod, v4));
    pod.del(plane, node).unwrap();
}

#[test]
fn a_new_address_of_the_node_is_steered_too() {
    let Some(cluster) = cluster("a_new_address_of_the_node") else { return };
    let (plane, node) = (&cluster.topology.plane, &cluster.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("addresses", DefaultRoute::Net1)).unwrap();
    let address: IpAddr = "198.18.77.1".parse().unwrap();
    node.ip(&format!("address add {address}/32 dev eth0")).unwrap();
    until("the address in the map", LIMIT, || {
        has_cidr(node, "198.18.77.1/32") && has_route(&pod, "198.18.77.1")
    });
    let config = Agent::coordinator_config(node, "addresses").unwrap();
    assert!(config["nodeAddresses"].as_array().unwrap().contains(&json!(address)), "{config}");
    node.ip(&format!("address del {address}/32 dev eth0")).unwrap();
    until("the map without it", LIMIT, || {
        !has_cidr(node, "198.18.77.1/32") && !has_route(&pod, "198.18.77.1")
    });
    pod.del(plane, node).unwrap();
}

#[test]
fn a_restart_keeps_what_lives_and_drops_what_is_gone() {
    let Some(mut cluster) = cluster("a_restart_keeps_what_lives") else { return };
    let agent = cluster.agents.remove(0);
    let (plane, node) = (&cluster.topology.plane, &cluster.topology.nodes[0]);
    let (lives, goes) = (
        Pod::add(plane, node, &spec("lives", DefaultRoute::Net1)).unwrap(),
        Pod::add(plane, node, &spec("goes", DefaultRoute::Net1)).unwrap(),
    );
    let (kept, dropped) = (counters::nic_ids(&lives).unwrap(), counters::nic_ids(&goes).unwrap());
    assert_eq!((in_use(node, &kept), in_use(node, &dropped)), (3, 3));

    // Nobody tells an agent that is down.
    agent.kill().unwrap();
    goes.del(plane, node).unwrap();
    assert_eq!(in_use(node, &dropped), 3, "nobody was there to remove it");
    let agent = Agent::start(plane, node).unwrap();
    assert_eq!((in_use(node, &kept), in_use(node, &dropped)), (3, 0));
    assert_eq!(counters::nic_ids(&lives).unwrap(), kept);
    assert!(has_cidr(node, addresses::SERVICES[0]), "the CIDRs of the pod that lives");

    lives.del(plane, node).unwrap();
    assert_eq!(in_use(node, &kept), 0);
    cluster.agents.push(agent);
}
