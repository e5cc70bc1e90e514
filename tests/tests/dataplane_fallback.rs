//! A node that cannot load the programs gives new pods `dataplane: policy`, and says so; pods that have programs keep them.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use anyhow::ensure;
use spiderpool_core::ip::Family;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::kernel_state::KernelState;
use spiderpool_tests::lab::{Lab, lock_lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{Probe, Protocol, Server, send};
use spiderpool_tests::{counters, poll, privilege};

const LIMIT: Duration = Duration::from_secs(30);

/// The node reaches net1, and the pod its node.
fn check_flows(lab: &Lab, pod: &Pod) {
    let node = &lab.topology.nodes[0];
    let servers = [Server::start(&pod.namespaces).unwrap(), node.start_server().unwrap()];
    for family in Family::ALL {
        let probe = |to| Probe { protocol: Protocol::Tcp, to, bound: None };
        send(node, probe(pod.net1().unwrap().get(family))).unwrap();
        send(&pod.namespaces, probe(node.address.get(family))).unwrap();
    }
    drop(servers);
}

#[test]
fn a_node_that_cannot_load_programs_gives_new_pods_rules_and_leaves_the_others_their_programs() {
    if !privilege::root_or_skip("a_node_that_cannot_load_programs") {
        return;
    }
    let mut lab = lock_lab(|_| Ok(())).unwrap();
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let old = Pod::add(plane, node, &spec("old", DefaultRoute::Net1)).unwrap();
    let programs = counters::nic_ids(&old.namespaces).unwrap();
    assert_eq!(programs.len(), 3);
    agent.stop().unwrap();

    let object = node.folder().unwrap().join("broken.o");
    std::fs::write(&object, "not an object").unwrap();
    let agent = Agent::start_with_object(plane, node, &object).unwrap();
    let new = Pod::add(plane, node, &spec("new", DefaultRoute::Net1)).unwrap();
    assert_eq!(counters::nic_ids(&new.namespaces).unwrap().len(), 0);
    let rules = new.namespaces.output("ip", &["rule"]).unwrap();
    assert!(rules.contains("lookup 101"), "{rules}");
    assert_eq!(counters::nic_ids(&old.namespaces).unwrap(), programs);
    let own = old.namespaces.output("ip", &["rule"]).unwrap();
    assert!(!own.contains("lookup 101"), "both in one pod: {own}");
    for pod in [&old, &new] {
        check_flows(&lab, pod);
    }
    poll::until("the Event of the Node", LIMIT, || {
        let arguments = ["get", "events", "-A", "--field-selector", "reason=DataplaneFallback", "-o", "yaml"];
        let events = plane.kubectl(&arguments)?;
        ensure!(events.contains("policy") && events.contains("broken.o"), "{events}");
        Ok(())
    })
    .unwrap();
    agent.stop().unwrap();

    // When it can, new pods get programs, and those that have rules keep them, also at a second ADD.
    let agent = Agent::start(plane, node).unwrap();
    let newest = Pod::add(plane, node, &spec("newest", DefaultRoute::Net1)).unwrap();
    assert_eq!(counters::nic_ids(&newest.namespaces).unwrap().len(), 3);
    let (network, attachment, result) = &new.attachments[0];
    let config = network.config(&network.plugins[1], result).unwrap();
    spiderpool_tests::cni::execute(node, "ADD", attachment, &config).unwrap();
    assert_eq!(counters::nic_ids(&new.namespaces).unwrap().len(), 0);
    for pod in [&old, &new, &newest] {
        check_flows(&lab, pod);
    }
    for pod in [old, new, newest] {
        pod.del(plane, node).unwrap();
    }
    before.wait_for_return(node).unwrap();
    lab.agents.push(agent);
}
