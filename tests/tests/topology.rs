//! The bench itself, without anything of ours in it: what works without a coordinator and what does not.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::thread;

use serde_json::json;
use spiderpool_core::ip::Family;
use spiderpool_tests::cni::Network;
use spiderpool_tests::control_plane::{Crds, Options};
use spiderpool_tests::matrix::Gateway;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::privilege;
use spiderpool_tests::probe::{Probe, Protocol, Server, send};
use spiderpool_tests::service;
use spiderpool_tests::topology::{Topology, addresses};

fn plain_macvlan() -> Network {
    Network {
        name: "plain".into(),
        version: "1.0.0".into(),
        plugins: vec![json!({
            "type": "macvlan", "master": "eth1", "mode": "bridge",
            "ipam": {
                "type": "host-local", "dataDir": "/run/plain",
                "ranges": [
                    [{"subnet": "10.66.0.0/16", "rangeStart": "10.66.2.10", "rangeEnd": "10.66.2.20"}],
                    [{"subnet": "fd66::/64", "rangeStart": "fd66::2:10", "rangeEnd": "fd66::2:20"}],
                ],
            },
        })],
    }
}

/// TCP and UDP are answered, and the server sees `source`.
fn works(from: &Namespaces, to: IpAddr, source: IpAddr) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let answer = send(from, Probe { protocol, to, bound: None })
            .unwrap_or_else(|error| panic!("{protocol} from {} to {to}: {error:#}", from.name));
        assert_eq!(answer.seen, Some(source), "{protocol} to {to}");
    }
}

/// No connection is answered. At the same time, because each waits for its deadline.
fn all_fail(connections: &[(&Namespaces, IpAddr, Option<IpAddr>)]) {
    thread::scope(|scope| {
        for (from, to, bound) in connections {
            scope.spawn(move || {
                let answer = send(from, Probe { protocol: Protocol::Tcp, to: *to, bound: *bound });
                assert!(answer.is_err(), "tcp from {} to {to} bound to {bound:?} gave {answer:?}", from.name);
            });
        }
    });
}

/// The rows of the flow matrix for "no coordinator": only what macvlan and the overlay do by themselves works.
#[test]
fn without_a_coordinator_the_pod_reaches_neither_services_nor_its_node_from_net1() {
    if !privilege::root_or_skip("without_a_coordinator") {
        return;
    }
    let topology = Topology::start(Options { crds: Crds::None, ..Options::default() }, 2).unwrap();
    let (plane, [node1, node2]) = (&topology.plane, topology.nodes.as_slice()) else { panic!("two nodes") };
    let spec = |name: &str, networks| PodSpec { name: name.into(), networks, ..PodSpec::default() };
    let overlay = Pod::add(plane, node1, &spec("overlay", vec![])).unwrap();
    let two = Pod::add(plane, node1, &spec("two", vec![plain_macvlan()])).unwrap();
    let backend = Pod::add(plane, node2, &spec("backend", vec![])).unwrap();
    let mut servers = vec![node1.start_server().unwrap()];
    for namespaces in [&two.namespaces, &backend.namespaces, &topology.outside] {
        servers.push(Server::start(namespaces).unwrap());
    }
    let cluster_ip = service::create(plane, "web", &[backend.eth0]).unwrap();
    service::wait_for_proxy(node1, cluster_ip, &[backend.eth0]).unwrap();

    for family in Family::ALL {
        let net1 = two.net1().unwrap().get(family);
        let eth0 = overlay.eth0.get(family);
        let (service, node, remote) =
            (cluster_ip.get(family), node1.address.get(family), backend.eth0.get(family));
        works(&overlay.namespaces, service, eth0);
        works(&overlay.namespaces, remote, eth0);
        works(&overlay.namespaces, node, eth0);
        works(&two.namespaces, service, two.eth0.get(family));
        all_fail(&[
            (&two.namespaces, service, Some(net1)),
            (&two.namespaces, node, Some(net1)),
            (node1, net1, None),
            (&topology.outside, net1, None),
        ]);

        let gateway = addresses::UNDERLAY_GATEWAY.get(family);
        let any = family.default_route();
        two.namespaces.ip(&format!("route replace {any} via {gateway} dev net1")).unwrap();
        works(&topology.outside, net1, addresses::OUTSIDE.get(family));
        works(&two.namespaces, addresses::OUTSIDE.get(family), net1);
        let ping = || send(&two.namespaces, Probe { protocol: Protocol::Ping, to: gateway, bound: None });
        ping().unwrap();
        topology.set_underlay_gateway(Gateway::Dead).unwrap();
        ping().unwrap_err();
        topology.set_underlay_gateway(Gateway::Alive).unwrap();
        ping().unwrap();
        all_fail(&[
            (&two.namespaces, service, None),
            (&two.namespaces, remote, None),
            (node1, two.eth0.get(family), None),
        ]);
    }
    drop(servers);
    for (pod, node) in [(overlay, node1), (two, node1), (backend, node2)] {
        pod.del(plane, node).unwrap();
    }
    for node in [node1, node2] {
        let left = node.output("ip", &["-br", "link"]).unwrap();
        assert!(!left.contains("cali"), "{left}");
        assert_eq!(node.output("ls", &["/run/netns"]).unwrap(), "");
        assert_eq!(node.deleted_routes(), Vec::<String>::new());
    }
}
