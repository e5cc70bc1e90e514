//! Pods whose first NIC is on the underlay, by programs and by rules: what they leave, and what their node believes. Their flows
//! are in the matrix.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use serde_json::{Value, json};
use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;
use spiderpool_tests::cni::{self, Network};
use spiderpool_tests::dual::Dual;
use spiderpool_tests::kernel_state::KernelState;
use spiderpool_tests::lab::{Lab, macvlan, underlay_spec, wait_for_no_pods};
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{Probe, Protocol, Server, send};
use spiderpool_tests::topology::addresses::SERVICES;
use spiderpool_tests::{counters, inside, node_ports, poll, privilege, service};

/// For an answer.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn an_underlay_pod_goes_and_leaves_nothing() {
    if privilege::root_or_skip("an_underlay_pod_goes_and_leaves_nothing") {
        for dataplane in [Dataplane::Ebpf, Dataplane::Policy] {
            check_what_is_left(dataplane);
        }
    }
}

fn check_what_is_left(dataplane: Dataplane) {
    let lab = Lab::start_with(1, dataplane, |_| ()).unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let [pod, sibling] = ["app", "sibling"].map(|name| Pod::add(plane, node, &underlay_spec(name)).unwrap());
    let beyond_routes = inside::beyond_routes(&pod.namespaces).unwrap();
    assert_eq!(beyond_routes.is_empty(), dataplane == Dataplane::Ebpf, "{beyond_routes:?}");
    let servers = [&pod, &sibling].map(|pod| Server::start(&pod.namespaces).unwrap());
    node_ports::check(&lab, "ported", pod.eth0, &[Protocol::Tcp, Protocol::Udp]).unwrap();
    node_ports::check(&lab, "sibling", sibling.eth0, &[Protocol::Tcp]).unwrap();
    for pod in [pod, sibling] {
        pod.del(plane, node).unwrap();
    }
    wait_for_no_pods(node).unwrap();
    // While the servers keep the pods' namespaces, as do connections whose peer does not answer.
    before.wait_for_return(node).unwrap();
    drop(servers);
}

/// Fails in upstream: the rule by net1's address comes before the one by mark. And the first DEL of any NIC took veth0
/// away from the others.
#[test]
fn a_second_nic_of_an_underlay_pod_is_reached_by_its_node_and_goes_alone() {
    if privilege::root_or_skip("a_second_nic_of_an_underlay_pod") {
        for dataplane in [Dataplane::Ebpf, Dataplane::Policy] {
            check_second_nic(dataplane);
        }
    }
}

fn check_second_nic(dataplane: Dataplane) {
    let lab = Lab::start_with(1, dataplane, |_| ()).unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    for default_route in ["eth0", "net1"] {
        let mut spec = underlay_spec(&format!("two-{default_route}"));
        spec.annotations = vec![
            ("ipam.spidernet.io/default-route-nic".to_owned(), default_route.to_owned()),
            ("k8s.v1.cni.cncf.io/networks".to_owned(), "a".to_owned()),
        ];
        let mut network = Network { version: "1.0.0".into(), ..macvlan("underlay-v4", "underlay-v6") };
        network.name = "second".into();
        network.plugins[1] = json!({"type": "coordinator", "mode": "underlay"});
        spec.networks = vec![network];
        let mut pod = Pod::add(plane, node, &spec).unwrap();
        let server = Server::start(&pod.namespaces).unwrap();
        for (nic, address) in [("eth0", pod.eth0), ("net1", pod.net1().unwrap())] {
            let name = format!("{}-{nic}", pod.name);
            node_ports::check(&lab, &name, address, &[Protocol::Tcp]).unwrap();
        }
        let (network, attachment, result) = pod.attachments.remove(0);
        network.check(node, &attachment, &result).unwrap();
        let config = network.config(&network.plugins[1], &result).unwrap();
        let whole = KernelState::of(&pod.namespaces).unwrap();
        cni::execute(node, "ADD", &attachment, &config).unwrap();
        assert_eq!(KernelState::of(&pod.namespaces).unwrap().changes(&whole), Vec::<String>::new());
        network.del(node, &attachment, &result).unwrap();
        // A runtime repeats DEL: the pod that goes on keeps what it has.
        let remaining = KernelState::of(&pod.namespaces).unwrap();
        network.del(node, &attachment, &result).unwrap();
        assert_eq!(KernelState::of(&pod.namespaces).unwrap().changes(&remaining), Vec::<String>::new());
        node_ports::check(&lab, &format!("{}-after", pod.name), pod.eth0, &[Protocol::Tcp]).unwrap();
        drop(server);
        pod.del(plane, node).unwrap();
        before.wait_for_return(node).unwrap();
    }
}

/// As documents of older releases print it, of another project's time: they work with coordinator in its place.
#[test]
fn a_network_with_the_plugin_veth_makes_an_underlay_pod() {
    if privilege::root_or_skip("a_network_with_the_plugin_veth_makes_an_underlay_pod") {
        for dataplane in [Dataplane::Ebpf, Dataplane::Policy] {
            check_veth_plugin(dataplane);
        }
    }
}

fn check_veth_plugin(dataplane: Dataplane) {
    let lab = Lab::start_with(1, dataplane, |_| ()).unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let backend = Pod::add(plane, node, &underlay_spec("backend")).unwrap();
    let server = Server::start(&backend.namespaces).unwrap();
    let cluster_ip = service::create(plane, "backend", &[backend.eth0]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[backend.eth0]).unwrap();
    // The second one is a network that the cluster does not know.
    for (name, cidrs) in [("printed", vec![SERVICES[0]]), ("more", vec![SERVICES[0], "10.97.0.0/16"])] {
        let network = Network {
            name: "macvlan-conf".into(),
            version: "0.3.1".into(),
            plugins: vec![
                json!({"type": "macvlan", "master": "eth1", "mode": "bridge", "ipam": {"type": "spiderpool"}}),
                json!({"type": "veth", "service_cidr": cidrs}),
            ],
        };
        let pools = json!({"ipv4": ["underlay-v4"], "ipv6": ["underlay-v6"]}).to_string();
        let spec = PodSpec {
            name: name.into(),
            annotations: vec![("ipam.spidernet.io/ippool".into(), pools)],
            first: Some(network),
            ..PodSpec::default()
        };
        let pod = Pod::add(plane, node, &spec).unwrap();
        let own = Server::start(&pod.namespaces).unwrap();
        for family in Family::ALL {
            // On a busy machine one answer may come too late for a probe.
            let ask = |what: &str, from, to: Dual| {
                let probe = Probe { protocol: Protocol::Tcp, to: to.get(family), bound: None };
                poll::until(&format!("{name}, {dataplane:?}, {family}: {what}"), LIMIT, || send(from, probe))
            };
            ask("pod to ClusterIP", &pod.namespaces, cluster_ip).unwrap();
            ask("pod to pod", &pod.namespaces, backend.eth0).unwrap();
            ask("node to pod", node, pod.eth0).unwrap();
        }
        node_ports::check(&lab, name, pod.eth0, &[Protocol::Tcp]).unwrap();
        for cidr in &cidrs {
            let inside = cidr.replace(".0/16", ".9");
            let route = pod.namespaces.output("ip", &["route", "get", &inside]).unwrap();
            assert!(route.contains(" dev veth0 "), "{dataplane} {route}");
        }
        let (network, result) = pod.first.as_ref().unwrap();
        let config = network.config(&network.plugins[1], result).unwrap();
        let attachment = pod.attachment("eth0");
        let whole = KernelState::of(&pod.namespaces).unwrap();
        for command in ["CHECK", "ADD"] {
            cni::execute(node, command, &attachment, &config).unwrap();
        }
        assert_eq!(KernelState::of(&pod.namespaces).unwrap().changes(&whole), Vec::<String>::new());
        let newer = Network { version: "1.1.0".into(), ..network.clone() };
        let config = newer.config(&network.plugins[1], &Value::Null).unwrap();
        cni::execute(node, "STATUS", &attachment, &config).unwrap();
        pod.namespaces.ip("link set veth0 down").unwrap();
        let config = network.config(&network.plugins[1], result).unwrap();
        cni::execute(node, "CHECK", &attachment, &config).unwrap_err();
        pod.del(plane, node).unwrap();
        drop(own);
    }
    plane.kubectl(&["delete", "service", "backend"]).unwrap();
    backend.del(plane, node).unwrap();
    drop(server);
    wait_for_no_pods(node).unwrap();
    before.wait_for_return(node).unwrap();
}

/// A pod may do in its namespace what it likes, and take whatever address it likes: the node takes none but its own from it.
#[test]
fn an_underlay_pod_sends_to_its_node_in_nobody_elses_name() {
    if !privilege::root_or_skip("an_underlay_pod_sends_to_its_node_in_nobody_elses_name") {
        return;
    }
    let lab = Lab::start_with(1, Dataplane::Ebpf, |_| ()).unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &underlay_spec("borrower")).unwrap();
    let victim = Pod::add(plane, node, &underlay_spec("victim")).unwrap();
    let ids = counters::nic_ids(&pod.namespaces).unwrap();
    let count = |reason: &str| {
        counters::read(node, &ids).unwrap().get(&format!("veth0 {reason}")).copied().unwrap_or(0)
    };
    let server = node.start_server().unwrap();
    for family in Family::ALL {
        let (own, borrowed, to) = (pod.eth0.get(family), victim.eth0.get(family), node.address.get(family));
        let probe = |bound| Probe { protocol: Protocol::Udp, to, bound: Some(bound) };
        assert!(send(&pod.namespaces, probe(own)).is_ok());
        pod.namespaces.ip(&format!("address add {}/{} dev lo nodad", borrowed, family.bits())).unwrap();
        for filters in [true, false] {
            if !filters {
                for nic in ["veth0", "eth0"] {
                    for direction in ["egress", "ingress"] {
                        let delete = ["filter", "del", "dev", nic, direction];
                        pod.namespaces.output("tc", &delete).unwrap();
                    }
                }
            }
            let (before, passed) = (count("link_foreign"), count("link_from_pod"));
            assert!(send(&pod.namespaces, probe(borrowed)).is_err(), "{borrowed}, filters {filters}");
            assert!(count("link_foreign") > before && count("link_from_pod") == passed);
            assert!(send(&pod.namespaces, probe(own)).is_ok(), "{own}, filters {filters}");
        }
        pod.namespaces.ip(&format!("address del {}/{} dev lo", borrowed, family.bits())).unwrap();
        // The agent puts them back, which this test need not wait for.
    }
    drop(server);
    for pod in [pod, victim] {
        pod.del(plane, node).unwrap();
    }
}
