//! `dataplane: policy` as a runtime meets it: what ADD leaves in the kernel, against upstream's listing of the same pod, and
//! that DEL takes it away in every order of failure.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::MutexGuard;

use serde_json::Value;
use spiderpool_core::coordinator::Dataplane;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::cni::Network;
use spiderpool_tests::kernel_state::KernelState;
use spiderpool_tests::lab::{Lab, lock_lab_with, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{Protocol, Server};
use spiderpool_tests::{cni, counters, node_ports, privilege};

fn lab() -> MutexGuard<'static, Lab> {
    lock_lab_with(Dataplane::Policy, |_| Ok(())).unwrap()
}

/// As iproute2 lists it, sorted, without who made it.
fn list(namespaces: &Namespaces, arguments: &[&str]) -> Vec<String> {
    let output = namespaces.output("ip", arguments).unwrap();
    let mut lines: Vec<String> = output
        .lines()
        .map(|line| {
            line.replace(" proto 83", "").replace(" proto 0x53", "").replace('\t', " ").trim().to_owned()
        })
        .collect();
    lines.sort();
    lines
}

/// The state of the reference's pod (Calico and macvlan), but for the numbers that upstream leaves to the kernel: the rules'
/// priority. The CIDRs in table 101 are missing there, so that a socket bound to net1 reaches no Service.
#[test]
fn the_kernel_has_what_upstream_lists() {
    if !privilege::root_or_skip("the_kernel_has_what_upstream_lists") {
        return;
    }
    let lab = lab();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for default_route in DefaultRoute::ALL {
        let pod = Pod::add(plane, node, &spec("listed", default_route)).unwrap();
        let (eth0, net1) = (pod.eth0.v4, pod.net1().unwrap().v4);
        let (first, second) = (node.address.v4, node.underlay.v4);
        let in_pod = |arguments: &[&str]| list(&pod.namespaces, arguments);
        let rules = [
            "0: from all lookup local".to_owned(),
            // Upstream has marks in underlay mode alone, and a NodePort's answer by net1 never arrives.
            "1000: from all fwmark 0x1 lookup 100".to_owned(),
            format!("32765: from {eth0} lookup 100"),
            format!("32765: from {net1} lookup 101"),
            "32766: from all lookup main".to_owned(),
            "32767: from all lookup default".to_owned(),
        ];
        assert_eq!(in_pod(&["-4", "rule"]), rules);
        // Which of the node's addresses is the next hop is the agent's order.
        let to_cluster = |via: std::net::Ipv4Addr| {
            let cidrs =
                ["10.244.0.0/16", "10.96.0.0/16"].map(|cidr| format!("{cidr} via {via} dev eth0 src {eth0}"));
            let nodes = [first, second].map(|node| format!("{node} dev eth0 scope link src {eth0}"));
            [cidrs.to_vec(), nodes.to_vec()].concat()
        };
        let main = in_pod(&["-4", "route"]);
        let via = if main.iter().any(|line| line.contains(&format!("via {first}"))) { first } else { second };
        let (eth0_default, net1_default) =
            ("default via 169.254.1.1 dev eth0", "default via 10.66.0.1 dev net1");
        let default = if default_route == DefaultRoute::Eth0 { eth0_default } else { net1_default };
        let sorted = |mut lines: Vec<String>| {
            lines.sort();
            lines
        };
        let connected = format!("10.66.0.0/16 dev net1 proto kernel scope link src {net1}");
        let own = vec![default.to_owned(), "169.254.1.1 dev eth0 scope link".to_owned(), connected];
        assert_eq!(main, sorted([to_cluster(via), own].concat()));
        assert_eq!(
            in_pod(&["-4", "route", "show", "table", "100"]),
            ["169.254.1.1 dev eth0 scope link", eth0_default]
        );
        let own = vec![net1_default.to_owned(), format!("10.66.0.0/16 dev net1 scope link src {net1}")];
        assert_eq!(in_pod(&["-4", "route", "show", "table", "101"]), sorted([to_cluster(via), own].concat()));
        for family in ["-4", "-6"] {
            let rules = list(node, &[family, "rule"]);
            assert!(rules.contains(&"1000: from all lookup 500".to_owned()), "{rules:?}");
        }
        let table = list(node, &["-4", "route", "show", "table", "500"]);
        assert!(table.len() == 1 && table[0].starts_with(&format!("{net1} dev cali")), "{table:?}");
        assert_eq!(counters::nic_ids(&pod.namespaces).unwrap().len(), 0, "programs and rules in one pod");
        pod.del(plane, node).unwrap();
    }
}

#[test]
fn a_repeated_add_changes_nothing_and_check_misses_what_is_removed() {
    if !privilege::root_or_skip("a_repeated_add_changes_nothing_and_check") {
        return;
    }
    let lab = lab();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let mut spec = spec("twice", DefaultRoute::Eth0);
    // The first version that has CHECK is 0.4.0.
    spec.networks[0].version = "1.0.0".into();
    let pod = Pod::add(plane, node, &spec).unwrap();
    let (network, attachment, result) = &pod.attachments[0];
    let before = [KernelState::of(node).unwrap(), KernelState::of(&pod.namespaces).unwrap()];
    let config = network.config(&network.plugins[1], result).unwrap();
    cni::execute(node, "ADD", attachment, &config).unwrap();
    let after = [KernelState::of(node).unwrap(), KernelState::of(&pod.namespaces).unwrap()];
    for (after, before) in after.iter().zip(&before) {
        assert_eq!(after.changes(before), Vec::<String>::new());
    }
    network.check(node, attachment, result).unwrap();
    let net1 = pod.net1().unwrap().v4.to_string();
    for (namespaces, removed, missed) in [
        (&pod.namespaces, "rule del from NET1 lookup 101", "rule add IPv4 from NET1 lookup 101"),
        (&pod.namespaces, "route del default table 100", "route add default via 169.254.1.1 dev eth0"),
        (&pod.namespaces, "rule del priority 1000", "rule add IPv4 from all fwmark 0x1 lookup 100"),
        (node as &Namespaces, "route del NET1 table 500", "node: route add NET1/32"),
        (node as &Namespaces, "rule del priority 1000", "node: rule add IPv4 from all lookup 500"),
    ] {
        namespaces.ip(&removed.replace("NET1", &net1)).unwrap();
        let error = network.check(node, attachment, result).unwrap_err().to_string();
        assert!(error.contains(&missed.replace("NET1", &net1)), "{removed}: {error}");
        cni::execute(node, "ADD", attachment, &config).unwrap();
        network.check(node, attachment, result).unwrap();
    }
    pod.del(plane, node).unwrap();
}

/// Upstream never removes the node's rule, asks the agent at every DEL, and leaves table 500 to the end of the links.
#[test]
fn del_needs_neither_result_nor_netns_nor_agent_and_leaves_nothing() {
    if !privilege::root_or_skip("del_needs_neither_result_nor_netns_nor_agent") {
        return;
    }
    let mut lab = lab();
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let [lasting, pod] =
        ["lasting", "forgotten"].map(|name| Pod::add(plane, node, &spec(name, DefaultRoute::Net1)).unwrap());
    let both = KernelState::of(node).unwrap();
    agent.kill().unwrap();
    let (network, attachment, result) = &pod.attachments[0];
    let config = |result: &Value| network.config(&network.plugins[1], result).unwrap();
    // A late DEL of an earlier sandbox with the same name, addresses and namespace.
    let earlier = cni::Attachment { container: "of-an-earlier-sandbox".into(), ..attachment.clone() };
    cni::execute(node, "DEL", &earlier, &config(result)).unwrap();
    assert_eq!(KernelState::of(node).unwrap().changes(&both), Vec::<String>::new());
    let gone = cni::Attachment { netns: "".into(), ..attachment.clone() };
    for attachment in [&gone, &gone, attachment] {
        cni::execute(node, "DEL", attachment, &config(&Value::Null)).unwrap();
        let table = list(node, &["-4", "route", "show", "table", "500"]);
        assert_eq!(table.len(), 1, "the other pod's: {table:?}");
        assert!(list(node, &["-4", "rule"]).contains(&"1000: from all lookup 500".to_owned()));
    }
    pod.del(plane, node).unwrap();
    lasting.del(plane, node).unwrap();
    before.wait_for_return(node).unwrap();
    let agent = Agent::start(plane, node).unwrap();
    lab.agents.push(agent);
}

/// A NIC that is unplugged from a pod that goes on running.
#[test]
fn a_pod_without_its_nic_is_as_it_was_before() {
    if !privilege::root_or_skip("a_pod_without_its_nic_is_as_it_was_before") {
        return;
    }
    let lab = lab();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for default_route in DefaultRoute::ALL {
        let mut spec = spec("unplugged", default_route);
        let network = spec.networks.remove(0);
        let mut pod = Pod::add(plane, node, &spec).unwrap();
        let before = [KernelState::of(node).unwrap(), KernelState::of(&pod.namespaces).unwrap()];
        pod.attach(node, "net1", &network).unwrap();
        let (network, attachment, result) = pod.attachments.remove(0);
        network.del(node, &attachment, &result).unwrap();
        before[0].wait_for_return(node).unwrap();
        let changes = KernelState::of(&pod.namespaces).unwrap().changes(&before[1]);
        // The node as a neighbor of eth0 is right whatever NICs there are.
        let changes: Vec<_> = changes.iter().filter(|line| !line.contains("PERMANENT")).collect();
        assert_eq!(changes, Vec::<&String>::new(), "default route on {}", default_route.nic());
        assert_eq!(pod.namespaces.output("nft", &["list", "tables"]).unwrap(), "");
        pod.del(plane, node).unwrap();
    }
}

/// Fails in upstream where the endpoint is an address of net1: no connection mark, or a rule before the one by mark.
/// Several underlay NICs, of which the second has the default route.
#[test]
fn a_node_port_reaches_each_underlay_address_and_its_answers_come_back() {
    if !privilege::root_or_skip("a_node_port_reaches_each_underlay_address") {
        return;
    }
    let lab = lab();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for default_route in ["eth0", "net1", "net2"] {
        let name = format!("ported-{default_route}");
        let mut spec = spec(&name, DefaultRoute::Net1);
        spec.annotations[0].1 = default_route.to_owned();
        spec.annotations.push(("k8s.v1.cni.cncf.io/networks".to_owned(), "a,b".to_owned()));
        spec.networks.push(Network { name: "macvlan-again".to_owned(), ..spec.networks[0].clone() });
        let pod = Pod::add(plane, node, &spec).unwrap();
        let server = Server::start(&pod.namespaces).unwrap();
        for (number, nic) in (1..).zip(["net1", "net2"]) {
            // Not by UDP: a server on the wildcard address answers datagrams with the source of the route back.
            let service = format!("{name}-{nic}");
            node_ports::check(&lab, &service, pod.underlay(number).unwrap(), &[Protocol::Tcp]).unwrap();
        }
        drop(server);
        pod.del(plane, node).unwrap();
    }
}
