//! Underlay NICs of other kinds than macvlan on a plain NIC: ipvlan, and both on VLANs and a bond of the plugin ifacer. Runs on kernels that have
//! them, which `cargo xtask vmtest` brings.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::MutexGuard;

use serde_json::{Value, json};
use spiderpool_core::ip::Family;
use spiderpool_tests::cni::Network;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::lab::{Lab, lock_lab, macvlan, spec};
use spiderpool_tests::link_kinds::{LinkKind, known_or_skip};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{Probe, Protocol, Server, send};
use spiderpool_tests::topology::{Node, addresses};
use spiderpool_tests::{counters, privilege, service};

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Ping];

fn lab(test: &str, kinds: &[LinkKind]) -> Option<MutexGuard<'static, Lab>> {
    let can_run = privilege::root_or_skip(test) && known_or_skip(test, kinds).unwrap();
    can_run.then(|| lock_lab(|_| Ok(())).unwrap())
}

/// A pod on this network, beside the lab's own annotations.
fn pod_spec(name: &str, default_route: DefaultRoute, network: &Network) -> PodSpec {
    PodSpec { networks: vec![network.clone()], ..spec(name, default_route) }
}

/// Every protocol is answered, and whoever answers has seen one of `sources`.
fn works(from: &Namespaces, to: IpAddr, bound: Option<IpAddr>, sources: &[IpAddr]) {
    for protocol in PROTOCOLS {
        let answer = send(from, Probe { protocol, to, bound });
        let answer =
            answer.unwrap_or_else(|error| panic!("{protocol} from {} to {to}: {error:#}", from.name));
        assert!(
            answer.seen.is_none_or(|seen| sources.contains(&seen)),
            "{protocol} to {to}: seen as {:?}",
            answer.seen
        );
    }
}

/// Who takes part beside the pod.
struct Others<'a> {
    node: &'a Node,
    neighbor: &'a Namespaces,
    outside: &'a Namespaces,
    /// On the same network, on the same node.
    sibling: &'a Pod,
    service: Dual,
}

/// What a pod with an underlay NIC has to reach, and who has to reach it.
fn flows(pod: &Pod, others: &Others<'_>) {
    for family in Family::ALL {
        let [eth0, net1] = [pod.eth0, pod.net1().unwrap()].map(|dual| dual.get(family));
        let underlay = [addresses::UNDERLAY_GATEWAY, others.sibling.net1().unwrap()];
        for to in underlay.map(|to| to.get(family)) {
            works(&pod.namespaces, to, Some(net1), &[net1]);
        }
        works(others.neighbor, net1, None, &[addresses::UNDERLAY_GATEWAY.get(family)]);
        works(&others.sibling.namespaces, net1, None, &[others.sibling.net1().unwrap().get(family)]);
        // Replies leave by net1 although the client is not in its subnet, with either default route.
        works(others.outside, net1, None, &[addresses::OUTSIDE.get(family)]);
        for bound in [None, Some(net1)] {
            works(&pod.namespaces, others.node.address.get(family), bound, &[eth0]);
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let probe = Probe { protocol, to: others.service.get(family), bound };
                let answer = send(&pod.namespaces, probe);
                let answer = answer.unwrap_or_else(|error| panic!("{probe:?}: {error:#}"));
                assert_eq!(answer.seen, Some(eth0), "{probe:?}");
            }
        }
        let own = [others.node.address, others.node.underlay].map(|own| own.get(family));
        works(others.node, net1, None, &own);
    }
}

/// Two pods on `network`, one after the other with the default route on each NIC, and all of their flows.
fn check(lab: &Lab, network: &Network) {
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let backend = Pod::add(plane, node, &PodSpec { name: "backend".into(), ..PodSpec::default() }).unwrap();
    let sibling = Pod::add(plane, node, &pod_spec("sibling", DefaultRoute::Eth0, network)).unwrap();
    let service = service::create(plane, "behind", &[backend.eth0]).unwrap();
    service::wait_for_proxy(node, service, &[backend.eth0]).unwrap();
    let mut servers = vec![node.start_server().unwrap()];
    for place in [&backend.namespaces, &sibling.namespaces, &*lab.topology.gateway] {
        servers.push(Server::start(place).unwrap());
    }
    for default_route in DefaultRoute::ALL {
        let name = format!("pod-{}", default_route.nic());
        let pod = Pod::add(plane, node, &pod_spec(&name, default_route, network)).unwrap();
        let server = Server::start(&pod.namespaces).unwrap();
        let ids = counters::nic_ids(&pod.namespaces).unwrap();
        assert_eq!(ids.len(), 3, "programs on eth0, net1 and sp0: {ids:?}");
        let others = Others {
            node,
            neighbor: &lab.topology.gateway,
            outside: &lab.topology.outside,
            sibling: &sibling,
            service,
        };
        flows(&pod, &others);
        let counted = counters::read(node, &ids).unwrap();
        let failed: Vec<_> = counted.keys().filter(|name| name.ends_with(" failed")).collect();
        assert!(failed.is_empty(), "{counted:?}");
        drop(server);
        pod.del(plane, node).unwrap();
    }
    drop(servers);
    plane.kubectl(&["delete", "service", "behind"]).unwrap();
    for pod in [sibling, backend] {
        pod.del(plane, node).unwrap();
    }
}

/// All NICs of an ipvlan parent have its MAC.
#[test]
fn ipvlan_pods_are_reached_and_steered() {
    let Some(lab) = lab("ipvlan_pods_are_reached_and_steered", &[LinkKind::Ipvlan]) else { return };
    let mut network = macvlan("underlay-v4", "underlay-v6");
    let ipam = network.plugins[0]["ipam"].take();
    network.name = "ipvlan-eth1".into();
    network.plugins[0] = json!({"type": "ipvlan", "master": "eth1", "mode": "l2", "ipam": ipam});
    check(&lab, &network);
}

/// The underlay in VLAN 100: of the node's bond, which ifacer makes, and of the gateway.
#[test]
fn macvlan_pods_on_a_vlan_of_a_bond_are_reached_and_steered() {
    let name = "macvlan_pods_on_a_vlan_of_a_bond";
    let Some(lab) = lab(name, &[LinkKind::Bond, LinkKind::Vlan]) else { return };
    let node = &lab.topology.nodes[0];
    let switch = addresses::underlay_name(1);
    lab.topology
        .fabric
        .ip(&format!(
            "link add second type veth peer name eth2 netns {}\nlink set second master {switch} up",
            node.process()
        ))
        .unwrap();
    let bond = json!({"name": "bond0", "mode": 1, "options": "miimon=100;primary=eth2"});
    let ifacer = json!({"vlanID": 100, "type": "ifacer", "interfaces": ["eth1", "eth2"], "bond": bond});
    check_on_vlan(&lab, "macvlan", &ifacer, "bond0.100");

    node.ip("link del bond0\nlink del eth2").unwrap();
    restore(&lab);
}

/// The underlay in VLAN 200 of the node's NIC, which ifacer makes.
#[test]
fn ipvlan_pods_on_a_vlan_are_reached_and_steered() {
    let kinds = [LinkKind::Ipvlan, LinkKind::Vlan];
    let Some(lab) = lab("ipvlan_pods_on_a_vlan_are_reached_and_steered", &kinds) else { return };
    let ifacer = json!({"vlanID": 200, "type": "ifacer", "interfaces": ["eth1"]});
    check_on_vlan(&lab, "ipvlan", &ifacer, "eth1.200");

    lab.topology.nodes[0].ip("link del eth1.200").unwrap();
    restore(&lab);
}

/// All flows of pods on `device`, which this plugin makes for the first of them.
fn check_on_vlan(lab: &Lab, kind: &str, ifacer: &Value, device: &str) {
    let (node, gateway) = (&lab.topology.nodes[0], &lab.topology.gateway);
    node.ip("addr flush dev eth1").unwrap();
    let id = &ifacer["vlanID"];
    gateway.ip(&format!("link add link ul name ul.tag type vlan id {id}\nlink set ul.tag up")).unwrap();
    gateway.ip("addr flush dev ul scope global").unwrap();
    set_addresses(gateway, "ul.tag", addresses::UNDERLAY_GATEWAY);
    gateway.nft(SEPARATION).unwrap();

    let mut network = macvlan("underlay-v4", "underlay-v6");
    network.name = format!("{kind}-{device}");
    network.plugins[0]["type"] = json!(kind);
    network.plugins[0]["mode"] = json!(if kind == "ipvlan" { "l2" } else { "bridge" });
    network.plugins[0]["master"] = json!(device);
    network.plugins.insert(0, ifacer.clone());
    // The node has an address there too, which an administrator gives it.
    let first =
        Pod::add(&lab.topology.plane, node, &pod_spec("first", DefaultRoute::Eth0, &network)).unwrap();
    set_addresses(node, device, node.underlay);
    check(lab, &network);
    first.del(&lab.topology.plane, node).unwrap();
}

/// The underlay without a tag.
fn restore(lab: &Lab) {
    let (node, gateway) = (&lab.topology.nodes[0], &lab.topology.gateway);
    gateway.nft("delete table inet vlan_separation").unwrap();
    gateway.ip("link del ul.tag").unwrap();
    set_addresses(gateway, "ul", addresses::UNDERLAY_GATEWAY);
    node.ip("link set eth1 up").unwrap();
    set_addresses(node, "eth1", node.underlay);
}

/// As the gateway's rules for its plain leg: a packet that took the wrong NIC does not arrive.
const SEPARATION: &str = "table inet vlan_separation {
    chain forward {
        type filter hook forward priority filter;
        iifname ul.tag oifname mgmt drop
        iifname mgmt oifname ul.tag drop
    }
}";

fn set_addresses(place: &Namespaces, device: &str, own: Dual) {
    place
        .ip(&format!(
            "addr replace {}/16 dev {device}\naddr replace {}/64 dev {device} nodad",
            own.v4, own.v6
        ))
        .unwrap();
}
