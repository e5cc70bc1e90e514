//! The agent as owner of its node's maps and programs: what changes in the cluster reaches running pods, and a
//! restart finds what it left.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future::try_join_all;
use serde_json::{Value, json};
use spiderpool_tests::agent::Agent;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::counters;
use spiderpool_tests::lab::{Lab, spec};
use spiderpool_tests::live_flows;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::registration::{in_node, register, unregister};
use spiderpool_tests::topology::{Node, addresses};
use spiderpool_tests::{poll, privilege, tools};

/// Long enough for a kernel that verifies the programs on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// The agent's inventory of the node's pods, in the node's mount namespace.
const STATE: &str = "/run/spidernet/dataplane.json";
/// Two sweeps of the agent over running pods, after the time that an ADD may take.
const SWEEPS: Duration = Duration::from_secs(20);
/// How often the agent looks at running pods of which the kernel reports nothing.
const SWEEP: Duration = Duration::from_secs(5);
/// What a changed Service CIDR may take, kubectl included.
const SOON: Duration = Duration::from_secs(10);

/// One lab for all tests, one test at a time: some of them restart its agent.
fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    static LAB: OnceLock<Mutex<Lab>> = OnceLock::new();
    if !privilege::root_or_skip(test) {
        return None;
    }
    let start = || Mutex::new(Lab::start(1, |_| ()).unwrap());
    Some(LAB.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner))
}

fn has_cidr(node: &Node, cidr: &str) -> bool {
    counters::cidrs(node).unwrap().iter().any(|entry| entry.cidr == cidr)
}

fn has_route(pod: &Pod, dst: &str) -> bool {
    !pod.namespaces.output("ip", &["route", "show", "table", "main", dst]).unwrap().is_empty()
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

/// What the agent of a node keeps of its pods.
fn inventory(node: &Node) -> Value {
    let text = node.output("cat", &[STATE]).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()
}

fn set_inventory(node: &Node, inventory: &Value) {
    let text = inventory.to_string();
    node.run(|| Ok(std::fs::write(STATE, text)?)).unwrap();
}

/// The profiles of the NIC ids in use, and those that have CIDRs.
fn profiles(node: &Node) -> [BTreeSet<u64>; 2] {
    let map = format!("{}/nics", counters::PINS);
    let dump = node.output("bpftool", &["-j", "map", "dump", "pinned", &map]).unwrap();
    let dump: Vec<Value> = serde_json::from_str(&dump).unwrap();
    let entries = dump.iter().map(|entry| &entry["formatted"]["value"]);
    let used = entries.filter(|entry| entry["role"] != 0).map(|entry| entry["profile"].as_u64().unwrap());
    let cidrs = counters::cidrs(node).unwrap();
    let filled = cidrs.iter().map(|entry| entry.raw["key"]["data"]["profile"].as_u64().unwrap());
    [used.collect(), filled.collect()]
}

/// A CIDR of a profile, written past the agent.
fn put_cidr(node: &Node, profile: u8) {
    let map = format!("{}/cluster_cidrs", counters::PINS);
    let mut key = [0; 24];
    (key[0], key[4], key[8]) = (160, profile, 0xfd);
    let key = key.map(|byte: u8| byte.to_string());
    let mut arguments = vec!["map", "update", "pinned", &map, "key"];
    arguments.extend(key.iter().map(String::as_str));
    arguments.extend(["value", "1", "1", "0", "0"]);
    node.output("bpftool", &arguments).unwrap();
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
    let Some(lab) = lab("a_changed_service_cidr") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("services", DefaultRoute::Net1)).unwrap();
    let [v4, v6] = addresses::SERVICES;
    let new = "10.199.0.0/16";
    assert!(has_cidr(node, v4) && has_route(&pod, v4));
    assert!(!has_cidr(node, new));
    lab.set_service_cidrs(&[v4, v6, new]).unwrap();
    until("the new CIDR", SOON, || has_cidr(node, new) && has_route(&pod, new));
    lab.set_service_cidrs(&[v4, v6]).unwrap();
    until("the old CIDRs", SOON, || !has_cidr(node, new) && !has_route(&pod, new));
    assert!(has_cidr(node, v4) && has_route(&pod, v4));
    pod.del(plane, node).unwrap();
}

#[test]
fn a_new_address_of_the_node_is_steered_too() {
    let Some(lab) = lab("a_new_address_of_the_node") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("addresses", DefaultRoute::Net1)).unwrap();
    let address: IpAddr = "198.18.77.1".parse().unwrap();
    // BGP on the host, and a bridge that looks like a container runtime's. Some kernels have no dummy devices.
    for (device, kind) in
        [("eth0", None), ("lo", None), ("cni-mgmt", Some("bridge")), ("dummy7", Some("dummy"))]
    {
        let created = kind.map(|kind| node.ip(&format!("link add {device} up type {kind}")));
        if created
            .is_some_and(|created| created.inspect_err(|error| eprintln!("{device}: {error:#}")).is_err())
        {
            assert_eq!(kind, Some("dummy"));
            continue;
        }
        node.ip(&format!("address add {address}/32 dev {device}")).unwrap();
        until(&format!("the address of {device} in the map"), LIMIT, || {
            has_cidr(node, "198.18.77.1/32") && has_route(&pod, "198.18.77.1")
        });
        let config = Agent::coordinator_config(node, "addresses").unwrap();
        assert!(config["nodeAddresses"].as_array().unwrap().contains(&json!(address)), "{config}");
        node.ip(&match kind {
            None => format!("address del {address}/32 dev {device}"),
            Some(_) => format!("link del {device}"),
        })
        .unwrap();
        until("the map without it", LIMIT, || {
            !has_cidr(node, "198.18.77.1/32") && !has_route(&pod, "198.18.77.1")
        });
    }
    pod.del(plane, node).unwrap();
}

/// What is in a node's Events of this reason.
fn node_events(plane: &ControlPlane, reason: &str) -> String {
    let of = format!("reason={reason}");
    plane
        .kubectl(&["get", "events.events.k8s.io", "--field-selector", &of, "-o", "jsonpath={.items[*].note}"])
        .unwrap()
}

/// A network manager of the host takes routes and neighbors, another agent all filters.
#[test]
fn what_others_take_from_a_running_pod_comes_back_and_the_node_says_so() {
    let Some(lab) = lab("what_others_take") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("taken", DefaultRoute::Net1)).unwrap();
    let net1 = pod.net1().unwrap().v4;
    let host = pod.attachment("eth0").container;
    let host = spiderpool_core::coordinator::host_end_name(&host).unwrap();
    let ids = counters::nic_ids(&pod.namespaces).unwrap();
    let has = |arguments: &[&str]| !node.output("ip", arguments).unwrap().is_empty();
    let address = net1.to_string();
    let is_whole = || {
        has(&["route", "show", &address, "dev", host.as_str()])
            && has(&["neigh", "show", &address, "dev", host.as_str(), "nud", "permanent"])
            && pod
                .namespaces
                .output("ip", &["address", "show", "dev", "sp0", "up"])
                .unwrap()
                .contains("169.254.77.2")
            && counters::nic_ids(&pod.namespaces).unwrap() == ids
    };
    until("the pod as it is", LIMIT, is_whole);
    let take = || {
        let begun = Instant::now();
        node.ip(&format!("route del {address}/32 dev {host}\nneigh del {address} dev {host}")).unwrap();
        until("route and neighbor", SWEEPS, is_whole);
        begun.elapsed()
    };
    // What a pod lacks before a sweep has found it whole may be what its ADD has still to do, and is not counted.
    let added = Instant::now();
    until("sweeps that have found it whole", SWEEPS, || added.elapsed() > SWEEP * 3);
    // The kernel's reports are followed. What is taken after a sweep has put it back waits for the next sweep otherwise.
    let mut took: Vec<Duration> = (0..6).map(|_| take()).collect();
    took.sort();
    assert!(took[1] + Duration::from_secs(1) < SWEEP, "{took:?}");
    node.ip(&format!("link set {host} down")).unwrap();
    until("the host end", SWEEPS, is_whole);
    pod.namespaces.ip("address flush dev sp0\nlink set sp0 down").unwrap();
    until("the pod's end", SWEEPS, is_whole);
    for nic in ["eth0", "net1"] {
        pod.namespaces.output("tc", &["qdisc", "del", "dev", nic, "clsact"]).unwrap();
    }
    until("the filters", SWEEPS, is_whole);
    until("an Event of the node", SWEEPS * 2, || {
        take();
        node_events(plane, "PodNetworkRestored").contains("(route)")
    });

    // Its place is taken by one that ends classification: ours goes behind it, and nothing reaches it.
    let others = "filter add dev net1 egress pref 1 handle 1 protocol all bpf bytecode";
    let others: Vec<&str> = others.split(' ').chain(["1,6 0 0 4294967295"]).collect();
    // A sweep in between would put ours back first.
    until("a filter of others in its place", SWEEPS, || {
        pod.namespaces.output("tc", &["filter", "del", "dev", "net1", "egress"]).unwrap();
        pod.namespaces.output("tc", &others).is_ok()
    });
    let places = || pod.namespaces.output("tc", &["filter", "show", "dev", "net1", "egress"]).unwrap();
    until("our filter behind it", SWEEPS, || places().contains("pref 2"));
    until("an Event that says so", SWEEPS * 2, || {
        pod.namespaces
            .run(|| {
                let socket = UdpSocket::bind((net1, 0))?;
                for _ in 0..100 {
                    // Where it is refused, the next one says so.
                    let _refused = socket.send_to(b"x", (addresses::UNDERLAY_GATEWAY.v4, 9));
                }
                Ok(())
            })
            .unwrap();
        node_events(plane, "FilterStarved").contains("net1")
    });
    pod.del(plane, node).unwrap();
}

/// Nothing of ours sees what the pod sends by it then: it could call the node, whatever its network policies deny.
#[test]
fn a_node_link_whose_filter_is_starved_is_closed_until_the_other_filter_is_gone() {
    let Some(lab) = lab("a_node_link_whose_filter_is_starved") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("closed", DefaultRoute::Eth0)).unwrap();
    let net1 = pod.net1().unwrap().v4.to_string();
    let host = spiderpool_core::coordinator::host_end_name(&pod.attachment("eth0").container).unwrap();
    let host = host.as_str();
    let is_answered = || node.output("ping", &["-c", "1", "-W", "1", &net1]).is_ok();
    until("an answer to the node", LIMIT, is_answered);

    let delete = ["filter", "del", "dev", host, "ingress", "pref", "1"];
    let others = ["filter", "add", "dev", host, "ingress", "pref", "1", "handle", "1", "protocol", "all"];
    let others = [&others[..], &["bpf", "bytecode", "1,6 0 0 4294967295"]].concat();
    // A sweep in between would put ours back first.
    until("a filter of others in its place", SWEEPS, || {
        node.output("tc", &delete).unwrap();
        node.output("tc", &others).is_ok()
    });
    let is_down = || node.output("ip", &["link", "show", "dev", host, "up"]).unwrap().is_empty();
    until("the link down", SWEEPS * 2, || {
        // Each answer is a packet that ours does not see; where the link is down already, there is none.
        let _lost = node.output("ping", &["-q", "-c", "100", "-i", "0.002", "-w", "2", &net1]);
        is_down()
    });
    until("an Event that says so", SWEEPS, || node_events(plane, "NodeLinkDown").contains(host));
    let since = Instant::now();
    until("three sweeps", SWEEPS, || {
        assert!(is_down(), "up again after {:?}, with the filter of others first", since.elapsed());
        since.elapsed() > SWEEP * 3
    });
    node.output("tc", &delete).unwrap();
    until("the link up again", SWEEPS, || !is_down() && is_answered());
    pod.del(plane, node).unwrap();
}

#[test]
fn a_restart_keeps_what_lives_and_drops_what_is_gone() {
    let Some(mut lab) = lab("a_restart_keeps_what_lives") else { return };
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let (lives, goes) = (
        Pod::add(plane, node, &spec("lives", DefaultRoute::Net1)).unwrap(),
        Pod::add(plane, node, &spec("goes", DefaultRoute::Net1)).unwrap(),
    );
    let (kept, dropped) =
        (counters::nic_ids(&lives.namespaces).unwrap(), counters::nic_ids(&goes.namespaces).unwrap());
    assert_eq!((in_use(node, &kept), in_use(node, &dropped)), (3, 3));

    // Nobody tells an agent that is down.
    agent.kill().unwrap();
    goes.del(plane, node).unwrap();
    assert_eq!(in_use(node, &dropped), 3, "nobody was there to remove it");
    let agent = Agent::start(plane, node).unwrap();
    assert_eq!((in_use(node, &kept), in_use(node, &dropped)), (3, 0));
    assert_eq!(counters::nic_ids(&lives.namespaces).unwrap(), kept);
    assert!(has_cidr(node, addresses::SERVICES[0]), "the CIDRs of the pod that lives");

    lives.del(plane, node).unwrap();
    assert_eq!(in_use(node, &kept), 0);
    lab.agents.push(agent);
}

/// The first start after the loss may not take the pods for gone, and the second neither.
#[test]
fn a_lost_inventory_costs_no_running_pod_its_entries() {
    let Some(mut lab) = lab("a_lost_inventory") else { return };
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("orphaned", DefaultRoute::Net1)).unwrap();
    let ids = counters::nic_ids(&pod.namespaces).unwrap();
    agent.kill().unwrap();
    node.run(|| Ok(std::fs::remove_file(STATE)?)).unwrap();
    let first = Agent::start(plane, node).unwrap();
    assert_eq!(in_use(node, &ids), 3, "after the loss");
    first.kill().unwrap();
    let second = Agent::start(plane, node).unwrap();
    assert_eq!(in_use(node, &ids), 3, "after the next start");
    assert!(has_cidr(node, addresses::SERVICES[0]), "the CIDRs of the pod that lives");
    let later = Pod::add(plane, node, &spec("later", DefaultRoute::Net1)).unwrap();
    let others = counters::nic_ids(&later.namespaces).unwrap();
    assert!(others.values().all(|id| !ids.values().any(|known| known == id)), "{others:?} {ids:?}");
    later.del(plane, node).unwrap();
    pod.del(plane, node).unwrap();
    lab.agents.push(second);
}

/// A node whose programs could not be loaded for a while, with what changed in the meantime.
#[test]
fn maps_that_load_late_hold_what_became_known_before() {
    let Some(mut lab) = lab("maps_that_load_late") else { return };
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("late", DefaultRoute::Net1)).unwrap();
    let [v4, v6] = addresses::SERVICES;
    let new = "10.198.0.0/16";
    agent.kill().unwrap();
    lab.set_service_cidrs(&[v4, v6, new]).unwrap();
    let object = node.folder().unwrap().join("late.o");
    drop(std::fs::remove_file(&object));
    let agent = Agent::start_with_object(plane, node, &object).unwrap();
    until("the new coordinator", LIMIT, || {
        let config = Agent::coordinator_config(node, "late").unwrap();
        config["serviceCIDR"].as_array().is_some_and(|cidrs| cidrs.contains(&json!(new)))
    });
    assert!(!has_cidr(node, new), "nobody can write it");
    std::fs::copy(tools::bpf_object().unwrap(), &object).unwrap();
    until("the new CIDR", LIMIT, || has_cidr(node, new) && has_route(&pod, new));
    lab.set_service_cidrs(&[v4, v6]).unwrap();
    until("the old CIDRs", LIMIT, || !has_cidr(node, new) && !has_route(&pod, new));
    pod.del(plane, node).unwrap();
    lab.agents.push(agent);
}

/// A full disk lasts longer than one attempt, and each of them opens the programs' log.
#[test]
fn attempts_to_load_that_fail_leave_no_thread() {
    let Some(mut lab) = lab("attempts_to_load_that_fail") else { return };
    let attempts = |agent: &Agent| agent.log().matches("eBPF dataplane loaded").count();
    let agent = lab.agents.remove(0);
    let before = attempts(&agent);
    agent.kill().unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    // Where the inventory is written before it takes the place of the last one.
    let blocked = "/run/spidernet/dataplane.new";
    node.run(|| Ok(std::fs::create_dir_all(blocked)?)).unwrap();
    let agent = Agent::start(plane, node).unwrap();
    let log_threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.id())).unwrap().flatten();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        tasks.filter_map(name).filter(|name| name.trim() == "bpf-log").count()
    };
    until("two attempts", 3 * LIMIT, || attempts(&agent) >= before + 2);
    assert_eq!(log_threads(), 0, "nothing is loaded");
    node.run(|| Ok(std::fs::remove_dir(blocked)?)).unwrap();
    until("the attempt that succeeds", LIMIT, || log_threads() == 1);
    lab.agents.push(agent);
}

/// The kernel gives inodes of namespaces again, and a runtime may give paths again.
#[test]
fn a_namespace_that_came_again_under_path_and_inode_is_another_pods() {
    let Some(mut lab) = lab("a_namespace_that_came_again") else { return };
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let (earlier, later) = (
        Pod::add(plane, node, &spec("earlier", DefaultRoute::Net1)).unwrap(),
        Pod::add(plane, node, &spec("zlater", DefaultRoute::Net1)).unwrap(),
    );
    let (old, new) =
        (counters::nic_ids(&earlier.namespaces).unwrap(), counters::nic_ids(&later.namespaces).unwrap());
    agent.kill().unwrap();
    earlier.del(plane, node).unwrap();
    let mut state = inventory(node);
    let pods = state["inventory"]["pods"].as_object_mut().unwrap();
    let of = |name: &str, pods: &serde_json::Map<String, Value>| {
        pods.iter()
            .find(|(_, pod)| pod["podName"] == name)
            .map(|(id, pod)| (id.clone(), pod.clone()))
            .unwrap()
    };
    let (id, mut gone) = of("earlier", pods);
    let (_, there) = of("zlater", pods);
    for member in ["netns", "netnsIdentity"] {
        gone[member] = there[member].clone();
    }
    pods.insert(id, gone);
    set_inventory(node, &state);
    let agent = Agent::start(plane, node).unwrap();
    until("the old pod's end", LIMIT, || in_use(node, &old) == 0);
    assert_eq!(counters::nic_ids(&later.namespaces).unwrap(), new, "the filters are the later pod's");
    assert_eq!(in_use(node, &new), 3);
    later.del(plane, node).unwrap();
    lab.agents.push(agent);
}

#[test]
fn a_restart_empties_the_profiles_that_nobody_uses() {
    let Some(mut lab) = lab("a_restart_empties_the_profiles") else { return };
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("profile", DefaultRoute::Net1)).unwrap();
    let [used, filled] = profiles(node);
    assert_eq!(used, filled);
    agent.kill().unwrap();
    // As if it had died between the last pod of a profile and the profile's end.
    put_cidr(node, 77);
    assert!(profiles(node)[1].contains(&77));
    let agent = Agent::start(plane, node).unwrap();
    until("the stale profile's end", LIMIT, || !profiles(node)[1].contains(&77));
    assert_eq!(profiles(node)[0], used);
    pod.del(plane, node).unwrap();
    lab.agents.push(agent);
}

/// As when a node is drained. Before, each of them read all maps entry by entry, and every ADD waited for all of them.
#[test]
fn a_hundred_dels_at_once_leave_nothing_of_their_pods_and_all_of_the_others() {
    let Some(lab) = lab("a_hundred_dels") else { return };
    let node = &lab.topology.nodes[0];
    let name = |number: u32| format!("drained-{number}");
    let (ids, stays) = in_node(node, async || {
        let mut ids = Vec::new();
        for number in 0..100 {
            ids.push(register(&name(number)).await?);
        }
        Ok((ids, register("stays").await?))
    })
    .unwrap();
    let before = live_flows::count(node).unwrap();
    live_flows::write(node, &ids, 10_000).unwrap();
    live_flows::write(node, &[stays], 100).unwrap();
    let more = |count| before.map(|before| before + count);
    assert_eq!(live_flows::count(node).unwrap(), more(10_100));
    let added = in_node(node, async || {
        let removals = (0..100).map(async |number| unregister(&name(number)).await);
        let (_, added) = tokio::try_join!(try_join_all(removals), register("meanwhile"))?;
        Ok(added)
    })
    .unwrap();
    assert_eq!(live_flows::count(node).unwrap(), more(100));
    let in_use = |ids: &[u16]| in_use(node, &ids.iter().map(|id| (id.to_string(), *id)).collect());
    assert_eq!((in_use(&ids), in_use(&[stays, added])), (0, 2));
    let text = inventory(node).to_string();
    assert!(!text.contains("drained-") && text.contains("stays") && text.contains("meanwhile"), "{text}");
    in_node(node, async || {
        // Again, as a runtime does that has not heard the answer.
        unregister(&name(0)).await?;
        unregister("stays").await?;
        unregister("meanwhile").await
    })
    .unwrap();
    assert_eq!(live_flows::count(node).unwrap(), before);
}
