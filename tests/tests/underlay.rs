//! Pods whose first NIC is on the underlay, under `dataplane: policy`: every flow, both families, and what is left after.
#![forbid(unsafe_code)]

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;
use spiderpool_tests::cni::{self, Network};
use spiderpool_tests::kernel_state::KernelState;
use spiderpool_tests::lab::{Lab, macvlan, underlay_spec, wait_for_no_pods};
use spiderpool_tests::matrix::Host;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{Protocol, Server};
use spiderpool_tests::topology::Node;
use spiderpool_tests::underlay::UnderlayHosts;
use spiderpool_tests::{node_ports, privilege, service};

#[test]
fn every_flow_of_an_underlay_pod_works() {
    if !privilege::root_or_skip("every_flow_of_an_underlay_pod_works") {
        return;
    }
    let lab = Lab::start_with(2, Dataplane::Policy, |_| ()).unwrap();
    let plane = &lab.topology.plane;
    let [node1, node2] = lab.topology.nodes.as_slice() else { panic!("two nodes") };
    let before = [node1, node2].map(|node| KernelState::of(node).unwrap());
    let overlay = |name: &str| PodSpec { name: name.into(), ..PodSpec::default() };
    let pod = Pod::add(plane, node1, &underlay_spec("app")).unwrap();
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
    if !privilege::root_or_skip("a_second_nic_of_an_underlay_pod") {
        return;
    }
    let lab = Lab::start_with(1, Dataplane::Policy, |_| ()).unwrap();
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
        node_ports::check(&lab, &format!("{}-after", pod.name), pod.eth0, &[Protocol::Tcp]).unwrap();
        drop(server);
        pod.del(plane, node).unwrap();
        before.wait_for_return(node).unwrap();
    }
}
