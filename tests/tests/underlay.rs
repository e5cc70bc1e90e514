//! Pods whose first NIC is on the underlay, by programs and by rules: every flow, both families, and what is left after.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;
use spiderpool_tests::cni::{self, Network};
use spiderpool_tests::kernel_state::KernelState;
use spiderpool_tests::lab::{Lab, macvlan, underlay_spec, wait_for_no_pods};
use spiderpool_tests::matrix::Host;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{Probe, Protocol, Server, send};
use spiderpool_tests::topology::Node;
use spiderpool_tests::underlay::UnderlayHosts;
use spiderpool_tests::{counters, inside, node_ports, privilege, service};

#[test]
fn every_flow_of_an_underlay_pod_works_with_programs() {
    if privilege::root_or_skip("every_flow_of_an_underlay_pod_works_with_programs") {
        check_every_flow(Dataplane::Ebpf);
    }
}

#[test]
fn every_flow_of_an_underlay_pod_works_with_rules() {
    if privilege::root_or_skip("every_flow_of_an_underlay_pod_works_with_rules") {
        check_every_flow(Dataplane::Policy);
    }
}

fn check_every_flow(dataplane: Dataplane) {
    let lab = Lab::start_with(2, dataplane, |_| ()).unwrap();
    let plane = &lab.topology.plane;
    let [node1, node2] = lab.topology.nodes.as_slice() else { panic!("two nodes") };
    let before = [node1, node2].map(|node| KernelState::of(node).unwrap());
    let overlay = |name: &str| PodSpec { name: name.into(), ..PodSpec::default() };
    let pod = Pod::add(plane, node1, &underlay_spec("app")).unwrap();
    let beyond_routes = inside::beyond_routes(&pod.namespaces).unwrap();
    assert_eq!(beyond_routes.is_empty(), dataplane == Dataplane::Ebpf, "{beyond_routes:?}");
    let sibling = Pod::add(plane, node1, &underlay_spec("sibling")).unwrap();
    let neighbor = Pod::add(plane, node1, &overlay("neighbor")).unwrap();
    let remote = Pod::add(plane, node2, &underlay_spec("remote")).unwrap();
    let overlay_pod = Pod::add(plane, node2, &overlay("overlay")).unwrap();
    let endpoints = [overlay_pod.eth0, remote.eth0];
    let cluster_ip = service::create(plane, "web", &endpoints).unwrap();
    service::wait_for_proxy(node1, cluster_ip, &endpoints).unwrap();
    let pods = [&pod, &sibling, &neighbor, &remote, &overlay_pod];
    let mut servers: Vec<Server> =
        pods.map(|pod| Server::start(&pod.namespaces).unwrap()).into_iter().collect();
    servers.extend([node1, node2].map(|node| node.start_server().unwrap()));
    servers.push(Server::start(&lab.topology.outside).unwrap());
    let host =
        |node: &Node| Host { namespaces: (**node).clone(), main: node.address, underlay: node.underlay };
    let place = |pod: &Pod| (pod.namespaces.clone(), pod.eth0);
    let hosts = UnderlayHosts {
        pod: place(&pod),
        node: host(node1),
        other_node: host(node2),
        sibling: place(&sibling),
        remote: place(&remote),
        neighbor: place(&neighbor),
        overlay_pod: place(&overlay_pod),
        outside: (*lab.topology.outside).clone(),
        cluster_ip,
    };
    let flows = Family::ALL.into_iter().flat_map(|family| hosts.flows(family));
    let failed: Vec<String> =
        flows.filter_map(|flow| flow.run().result.err().map(|error| format!("{flow}: {error:#}"))).collect();
    assert!(failed.is_empty(), "{} flows failed:\n{}", failed.len(), failed.join("\n"));
    node_ports::check(&lab, "ported", pod.eth0, &[Protocol::Tcp, Protocol::Udp]).unwrap();
    drop(servers);
    for pod in [pod, sibling, neighbor] {
        pod.del(plane, node1).unwrap();
    }
    for pod in [remote, overlay_pod] {
        pod.del(plane, node2).unwrap();
    }
    for (node, before) in [node1, node2].into_iter().zip(before) {
        wait_for_no_pods(node).unwrap();
        before.wait_for_return(node).unwrap();
    }
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
        network.plugins[1] = serde_json::json!({"type": "coordinator", "mode": "underlay"});
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
