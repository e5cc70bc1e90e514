//! What is more than a plain packet: too long for its path, in fragments, answered by ICMP errors. The kernel's own sockets say what
//! they have learnt and got.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::MutexGuard;

use nix::errno::Errno;
use spiderpool_core::ip::Family;
use spiderpool_tests::bulk::{Datagrams, EchoServer, stream};
use spiderpool_tests::dual::Dual;
use spiderpool_tests::fixture::RouteHints;
use spiderpool_tests::lab::{Lab, lock_lab_of, spec, wait_for_hints};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::privilege;
use spiderpool_tests::topology::{Node, addresses};

/// Of eth0.
const CLUSTER_MTU: usize = 1450;
/// Of the hop behind the node.
const HOP_MTU: usize = 1300;
/// Some hundred segments.
const BULK: usize = 1 << 19;

fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip(test).then(|| lock_lab_of(2, |_| Ok(())).unwrap())
}

/// A pod of the other node with eth0 alone, and a server in it.
fn overlay_pod(lab: &Lab) -> (Pod, EchoServer) {
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[1]);
    let pod = Pod::add(plane, node, &PodSpec { name: "far".into(), ..PodSpec::default() }).unwrap();
    let server = EchoServer::start(&pod.namespaces).unwrap();
    (pod, server)
}

/// A hop between the nodes that carries less than the links, or no such hop.
fn set_hop(node: &Node, mtu: Option<usize>) {
    let (via, [v4, v6]) = (addresses::node(2), addresses::pod_cidrs(2));
    let mtu = mtu.map_or_else(String::new, |mtu| format!("mtu lock {mtu}"));
    node.ip(&format!("route replace {v4} via {} {mtu}\nroute replace {v6} via {} {mtu}", via.v4, via.v6))
        .unwrap();
}

/// The pod's kernel knows no path MTUs any more.
fn forget_paths(pod: &Namespaces) {
    pod.ip("route flush cache").unwrap();
    pod.output("ip", &["-6", "route", "flush", "cache"]).unwrap();
}

/// Makes net1, and what is below it, carry so much.
fn set_underlay_mtu(lab: &Lab, mtu: usize) {
    let node = &lab.topology.nodes[0];
    lab.topology.fabric.ip(&format!("link set node1-eth1 mtu {mtu}")).unwrap();
    node.ip(&format!("link set eth1 mtu {mtu}")).unwrap();
}

/// The sources that a client can have: its own choice, and net1's address, which is translated.
fn sources(pod: &Pod, family: Family) -> [Option<IpAddr>; 2] {
    [None, Some(pod.net1().unwrap().get(family))]
}

#[test]
fn nothing_is_lost_in_silence_on_a_path_that_is_narrower_than_the_nic() {
    let Some(lab) = lab("nothing_is_lost_in_silence") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let (far, server) = overlay_pod(&lab);
    for (hints, mtu) in [(RouteHints::Auto, 1500), (RouteHints::Never, 1500), (RouteHints::Never, 9000)] {
        lab.set_coordinator(hints).unwrap();
        set_underlay_mtu(&lab, mtu);
        for default_route in DefaultRoute::ALL {
            let name = format!("client-{}-{}-{mtu}", default_route.nic(), hints.name());
            let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
            wait_for_hints(node, &pod.name, hints).unwrap();
            for (hop, path) in [(None, CLUSTER_MTU), (Some(HOP_MTU), HOP_MTU)] {
                set_hop(node, hop);
                for family in Family::ALL {
                    for source in sources(&pod, family) {
                        let to = far.eth0.get(family);
                        let what = format!("{name}, {source:?} to {to}, path of {path}");
                        forget_paths(&pod.namespaces);
                        stream(&pod.namespaces, source, to, BULK).expect(&what);
                        forget_paths(&pod.namespaces);
                        let datagrams = Datagrams::open(&pod.namespaces, source, to).unwrap();
                        datagrams.forbid_fragments().unwrap();
                        assert_eq!(datagrams.discover().expect(&what), path, "{what}");
                    }
                }
            }
            set_hop(node, None);
            // Its answers leave by the node link, which carries less than net1.
            let own = EchoServer::start(&pod.namespaces).unwrap();
            call_by(node, pod.net1().unwrap(), &name);
            drop(own);
            pod.del(plane, node).unwrap();
        }
    }
    set_underlay_mtu(&lab, 1500);
    lab.set_coordinator(RouteHints::Auto).unwrap();
    drop(server);
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}

/// Whom the pod calls by net1's address, and nobody listens there.
#[test]
fn a_socket_hears_that_its_port_is_refused() {
    let Some(lab) = lab("a_socket_hears_that_its_port_is_refused") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let far = Pod::add(plane, &lab.topology.nodes[1], &PodSpec { name: "mute".into(), ..PodSpec::default() })
        .unwrap();
    for default_route in DefaultRoute::ALL {
        let pod =
            Pod::add(plane, node, &spec(&format!("refused-{}", default_route.nic()), default_route)).unwrap();
        for family in Family::ALL {
            for source in sources(&pod, family) {
                let datagrams = Datagrams::open(&pod.namespaces, source, far.eth0.get(family)).unwrap();
                let what = format!("{source:?}, {family:?}");
                assert_eq!(datagrams.refusal(100).expect(&what), Errno::ECONNREFUSED, "{what}");
            }
        }
        pod.del(plane, node).unwrap();
    }
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}

/// Datagrams of 8 KiB, there and back.
#[test]
fn large_datagrams_arrive_both_ways() {
    let Some(lab) = lab("large_datagrams") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let (far, server) = overlay_pod(&lab);
    for hints in [RouteHints::Auto, RouteHints::Never] {
        lab.set_coordinator(hints).unwrap();
        for default_route in DefaultRoute::ALL {
            let name = format!("large-{}-{}", default_route.nic(), hints.name());
            let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
            wait_for_hints(node, &pod.name, hints).unwrap();
            for family in Family::ALL {
                for source in sources(&pod, family) {
                    let to = far.eth0.get(family);
                    let what = format!("{name}, {source:?} to {to}");
                    let datagrams = Datagrams::open(&pod.namespaces, source, to).unwrap();
                    // Of the first one its fragments may be too long for eth0, which is said once.
                    drop(datagrams.exchange(8192));
                    for _ in 0..5 {
                        datagrams.exchange(8192).expect(&what);
                    }
                }
            }
            large_calls(&lab, &pod);
            pod.del(plane, node).unwrap();
        }
    }
    lab.set_coordinator(RouteHints::Auto).unwrap();
    drop(server);
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}

/// The pod is called, by a server on the wildcard address and one on net1's own, from the node, from a machine in the underlay and
/// from behind its gateway.
fn large_calls(lab: &Lab, pod: &Pod) {
    let node = &lab.topology.nodes[0];
    let net1 = pod.net1().unwrap();
    let callers: [&Namespaces; 3] = [node, &lab.topology.gateway, &lab.topology.outside];
    let server = EchoServer::start(&pod.namespaces).unwrap();
    for from in callers {
        call_by(from, net1, &pod.name);
    }
    drop(server);
}

fn call_by(from: &Namespaces, to: Dual, name: &str) {
    for family in Family::ALL {
        let what = format!("{} calls {name} by {}", from.name, to.get(family));
        let datagrams = Datagrams::open(from, None, to.get(family)).unwrap();
        drop(datagrams.exchange(8192));
        for _ in 0..5 {
            datagrams.exchange(8192).expect(&what);
        }
        stream(from, None, to.get(family), BULK).expect(&what);
    }
}

/// Offloads of a NIC, on or off.
fn set_offloads(place: &Namespaces, nic: &str, state: &str) {
    for feature in ["sg", "tx", "rx", "tso", "gso", "gro"] {
        place.output("ethtool", &["-K", nic, feature, state]).unwrap();
    }
}

/// The host end of a pod's NIC.
fn peer(node: &Node, pod: &Pod, nic: &str) -> String {
    let index = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let link = index(&pod.namespaces.output("ip", &["-j", "link", "show", "dev", nic]).unwrap());
    let links = index(&node.output("ip", &["-j", "link"]).unwrap());
    let links = links.as_array().unwrap();
    let peer = links.iter().find(|peer| peer["ifindex"] == link[0]["link_index"]).unwrap();
    peer["ifname"].as_str().unwrap().to_owned()
}

/// Checksums and segments are computed by the kernel, or left to devices that have none to compute: the receiver verifies what was
/// changed on the way in the one case, and in the other the kernel resolves it later.
#[test]
fn offloads_make_no_difference() {
    let Some(lab) = lab("offloads") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let (far, server) = overlay_pod(&lab);
    for default_route in DefaultRoute::ALL {
        let pod = Pod::add(plane, node, &spec(&format!("offloads-{}", default_route.nic()), default_route))
            .unwrap();
        let (eth0, sp0) = (peer(node, &pod, "eth0"), peer(node, &pod, "sp0"));
        let places: [(&Namespaces, &str); 7] = [
            (&pod.namespaces, "eth0"),
            (&pod.namespaces, "sp0"),
            // A macvlan device has its parent's.
            (node, "eth1"),
            (node, &eth0),
            (node, &sp0),
            (node, "eth0"),
            (&lab.topology.nodes[1], "eth0"),
        ];
        // All; none; those of the pod alone; those of the nodes alone.
        for states in [["on", "on"], ["off", "off"], ["on", "off"], ["off", "on"]] {
            for (number, (place, nic)) in places.iter().enumerate() {
                set_offloads(place, nic, states[usize::from(number >= 3)]);
            }
            for family in Family::ALL {
                let what = format!("{}, {family:?}, offloads {states:?}", pod.name);
                for source in sources(&pod, family) {
                    let to = far.eth0.get(family);
                    stream(&pod.namespaces, source, to, BULK).expect(&what);
                    let datagrams = Datagrams::open(&pod.namespaces, source, to).unwrap();
                    for length in [1, 1000, 8192] {
                        datagrams.exchange(length).or_else(|_| datagrams.exchange(length)).expect(&what);
                    }
                }
            }
            let server = EchoServer::start(&pod.namespaces).unwrap();
            for from in [node as &Namespaces, &lab.topology.outside] {
                call_by(from, pod.net1().unwrap(), &format!("{} with offloads {states:?}", pod.name));
            }
            drop(server);
        }
        for (place, nic) in &places {
            set_offloads(place, nic, "on");
        }
        pod.del(plane, node).unwrap();
    }
    drop(server);
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}

/// Hop-by-hop and destination options, in front of a datagram and of its fragments.
#[test]
fn extension_headers_make_no_difference() {
    let Some(lab) = lab("extension_headers") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let (far, server) = overlay_pod(&lab);
    for default_route in DefaultRoute::ALL {
        let pod = Pod::add(plane, node, &spec(&format!("extended-{}", default_route.nic()), default_route))
            .unwrap();
        let own = EchoServer::start(&pod.namespaces).unwrap();
        let net1 = pod.net1().unwrap().get(Family::V6);
        let mut calls: Vec<(&Namespaces, Option<IpAddr>, IpAddr)> =
            vec![(node, None, net1), (&lab.topology.gateway, None, net1)];
        calls.extend(
            sources(&pod, Family::V6).map(|source| (&pod.namespaces, source, far.eth0.get(Family::V6))),
        );
        for (from, source, to) in calls {
            let datagrams = Datagrams::open(from, source, to).unwrap();
            datagrams.add_extension_headers().unwrap();
            let what = format!("{} as {source:?} to {to}", from.name);
            drop(datagrams.exchange(8192));
            for length in [1, 1000, 8192] {
                datagrams.exchange(length).expect(&what);
            }
        }
        drop(own);
        pod.del(plane, node).unwrap();
    }
    drop(server);
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}
