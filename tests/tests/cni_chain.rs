//! The CNI chain as a runtime runs it, with a real agent: ADD, a repeated ADD, CHECK, DEL in every order of failure.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use spiderpool_tests::agent::Agent;
use spiderpool_tests::kernel_state::KernelState;
use spiderpool_tests::lab::{Lab, lock_lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::{cni, counters, inside, poll, privilege};

/// What the agent does after its answer, it does within a second; a busy machine gets more.
const LATER: Duration = Duration::from_secs(15);

fn lab() -> MutexGuard<'static, Lab> {
    lock_lab(|_| Ok(())).unwrap()
}

#[test]
fn del_undoes_what_add_did() {
    if !privilege::root_or_skip("del_undoes_what_add_did") {
        return;
    }
    let lab = lab();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let pod = Pod::add(plane, node, &spec("undone", DefaultRoute::Net1)).unwrap();
    assert_ne!(KernelState::of(node).unwrap(), before);
    let held = plane.kubectl(&["get", "sip", "-o", "name"]).unwrap();
    assert_eq!(held.lines().count(), 2, "{held}");
    poll::until("the endpoint", LATER, || plane.kubectl(&["get", "spiderendpoint", "undone"])).unwrap();

    pod.del(plane, node).unwrap();
    // The node link ends with the pod's namespace, a moment after its last user.
    poll::until("the end of the sandbox's links", LATER, || {
        let changes = KernelState::of(node)?.changes(&before);
        ensure!(changes.is_empty(), "{changes:?}");
        Ok(())
    })
    .unwrap();
    poll::until("the end of addresses and endpoint", LATER, || {
        let left = plane.kubectl(&["get", "sip,spiderendpoints", "-A", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_repeated_add_changes_nothing() {
    if !privilege::root_or_skip("a_repeated_add_changes_nothing") {
        return;
    }
    let lab = lab();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let mut spec = spec("twice", DefaultRoute::Eth0);
    // The first version that has CHECK is 0.4.0.
    spec.networks[0].version = "1.0.0".into();
    let pod = Pod::add(plane, node, &spec).unwrap();
    let (network, attachment, result) = &pod.attachments[0];
    let look = || (KernelState::of(&pod.namespaces).unwrap(), counters::nic_ids(&pod.namespaces).unwrap());
    let before = look();
    assert_eq!(before.1.len(), 3, "programs on eth0, net1 and sp0: {:?}", before.1);
    assert_eq!(inside::beyond_routes(&pod.namespaces).unwrap(), Vec::<String>::new());

    let [macvlan, coordinator] = network.plugins.as_slice() else { panic!("two plugins") };
    let config = network.config(macvlan, &Value::Null).unwrap();
    let again = cni::execute_type(node, "spiderpool", "ADD", attachment, &config).unwrap();
    let addresses = |result: &Value| -> Vec<String> {
        let mut list: Vec<String> =
            result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].to_string()).collect();
        list.sort();
        list
    };
    assert_eq!(addresses(&again), addresses(result));
    let config = network.config(coordinator, result).unwrap();
    cni::execute(node, "ADD", attachment, &config).unwrap();
    let after = look();
    assert_eq!(after.0.changes(&before.0), Vec::<String>::new());
    assert_eq!(after.1, before.1);
    network.check(node, attachment, result).unwrap();
    pod.del(plane, node).unwrap();
}

/// The agent may be quicker and put it back: then it is tried again.
#[test]
fn check_names_what_is_missing() {
    if !privilege::root_or_skip("check_names_what_is_missing") {
        return;
    }
    let lab = lab();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let mut spec = spec("checked", DefaultRoute::Net1);
    spec.networks[0].version = "1.0.0".into();
    let pod = Pod::add(plane, node, &spec).unwrap();
    let (network, attachment, result) = &pod.attachments[0];
    let config = network.config(&network.plugins[1], result).unwrap();
    for (removal, missing) in [
        (vec!["tc", "filter", "del", "dev", "net1", "egress"], "pod: program egress on net1"),
        (vec!["tc", "filter", "del", "dev", "eth0", "ingress"], "pod: program ingress on eth0"),
        (vec!["tc", "filter", "del", "dev", "sp0", "ingress"], "pod: program ingress on sp0"),
        (vec!["ip", "link", "set", "sp0", "down"], "pod: link set sp0 up"),
        (vec!["ip", "-4", "addr", "flush", "dev", "sp0"], "sp0"),
        (vec!["ip", "neigh", "flush", "dev", "sp0", "nud", "permanent"], "sp0"),
        (vec!["sysctl", "-q", "-w", "net.ipv4.conf.all.arp_announce=0"], "all/arp_announce"),
    ] {
        let caught = (0..20).any(|_| {
            network.check(node, attachment, result).unwrap();
            pod.namespaces.output(removal[0], &removal[1..]).unwrap();
            let Err(error) = network.check(node, attachment, result) else { return false };
            assert!(error.to_string().contains(missing), "{removal:?}: {error:#}");
            cni::execute(node, "ADD", attachment, &config).unwrap();
            network.check(node, attachment, result).unwrap();
            true
        });
        assert!(caught, "{removal:?} is not missed");
    }
    pod.del(plane, node).unwrap();
}

/// The main plugin waits until no address of the NIC is tentative, link-local ones included.
#[test]
fn duplicate_address_detection_is_as_configured() {
    if !privilege::root_or_skip("duplicate_address_detection_is_as_configured") {
        return;
    }
    let mut lab = lab();
    lab.agents.remove(0).stop().unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for (name, enabled, expect) in [("detected", true, "1"), ("undetected", false, "0")] {
        let config = json!({"enableDuplicateAddressDetection": enabled});
        let agent = Agent::start_with_config(plane, node, &config).unwrap();
        let pod = Pod::add(plane, node, &spec(name, DefaultRoute::Net1)).unwrap();
        let detection = |nic: &str| {
            let key = format!("/proc/sys/net/ipv6/conf/{nic}/accept_dad");
            pod.namespaces.output("cat", &[&key]).unwrap().trim().to_owned()
        };
        assert_eq!(detection("net1"), expect, "{name}");
        let others = [detection("all"), detection("default")];
        assert_eq!(others, ["0", "1"], "as in every new namespace: {name}");
        let addresses = pod.namespaces.output("ip", &["-6", "address", "show", "dev", "net1"]).unwrap();
        let global = pod.net1().unwrap().v6.to_string();
        assert!(addresses.contains(&global) && addresses.contains("inet6 fe80:"), "{addresses}");
        assert!(!addresses.contains("tentative") && !addresses.contains("dadfailed"), "{addresses}");
        pod.del(plane, node).unwrap();
        agent.stop().unwrap();
    }
    let agent = Agent::start(plane, node).unwrap();
    lab.agents.push(agent);
}

#[test]
fn del_needs_neither_result_nor_netns_nor_agent() {
    if !privilege::root_or_skip("del_needs_neither_result_nor_netns_nor_agent") {
        return;
    }
    let mut lab = lab();
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let pod = Pod::add(plane, node, &spec("forgotten", DefaultRoute::Net1)).unwrap();
    agent.kill().unwrap();
    let (network, attachment, _) = &pod.attachments[0];
    let gone = cni::Attachment { netns: "".into(), ..attachment.clone() };
    // macvlan's own DEL is not ours to judge; without a namespace it has nothing to do.
    for plugin in ["coordinator", "spiderpool"] {
        let [macvlan, coordinator] = network.plugins.as_slice() else { panic!("two plugins") };
        let config = if plugin == "coordinator" { coordinator } else { macvlan };
        for attachment in [attachment, &gone, &gone] {
            let config = network.config(config, &Value::Null).unwrap();
            cni::execute_type(node, plugin, "DEL", attachment, &config).unwrap();
        }
    }
    pod.del(plane, node).unwrap();
    before.wait_for_return(node).unwrap();
    // The next agent has not seen the pod: it waits for its grace period, which is a second, and a few more.
    let agent = Agent::start(plane, node).unwrap();
    poll::until("the end of the addresses", LATER, || {
        let left = plane.kubectl(&["get", "sip", "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
    .unwrap();
    lab.agents.push(agent);
}

#[test]
fn a_restarted_agent_attaches_again_what_is_missing() {
    if !privilege::root_or_skip("a_restarted_agent_attaches_again_what_is_missing") {
        return;
    }
    let mut lab = lab();
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("lasting", DefaultRoute::Net1)).unwrap();
    let before = counters::nic_ids(&pod.namespaces).unwrap();
    agent.kill().unwrap();
    pod.namespaces.output("tc", &["qdisc", "del", "dev", "net1", "clsact"]).unwrap();
    assert_ne!(counters::nic_ids(&pod.namespaces).unwrap(), before);

    let agent = Agent::start(plane, node).unwrap();
    poll::until("programs on net1", LATER, || {
        let ids = counters::nic_ids(&pod.namespaces)?;
        ensure!(ids == before, "ids are {ids:?}, were {before:?}");
        Ok(())
    })
    .unwrap();
    pod.del(plane, node).unwrap();
    lab.agents.push(agent);
}
