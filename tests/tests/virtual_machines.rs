//! A virtual machine in the pod, as KubeVirt's binding `masquerade` connects it: behind a bridge of its own, with an address that
//! nobody else knows, and NAT in the pod's namespace. No socket of the pod has its flows.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::MutexGuard;

use spiderpool_core::ip::Family;
use spiderpool_tests::bulk::{self, Datagrams, EchoServer, stream};
use spiderpool_tests::fixture::RouteHints;
use spiderpool_tests::lab::{Lab, lock_lab_of, spec, wait_for_hints};
use spiderpool_tests::machine::Machine;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::privilege;
use spiderpool_tests::probe::{self, Probe, Protocol};
use spiderpool_tests::topology::addresses;

/// Of the machine and of its bridge in the pod, as KubeVirt has them.
const MACHINE: [&str; 2] = ["10.0.2.2", "fd10:0:2::2"];
const BRIDGE: [&str; 2] = ["10.0.2.1", "fd10:0:2::1"];
const BULK: usize = 1 << 18;

fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip(test).then(|| lock_lab_of(2, |_| Ok(())).unwrap())
}

/// Puts a machine behind the pod: what goes to the pod's addresses reaches it, but what the pod itself has asked for.
fn start_machine(lab: &Lab, pod: &Pod) -> Machine {
    let machine = Machine::start("vm", &lab.topology.state).unwrap();
    let inside = &pod.namespaces;
    inside.sysctl(&["ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1"]).unwrap();
    inside
        .ip(&format!(
            "link add k6t type bridge
            link add tap type veth peer name eth0 netns {}
            link set k6t mtu 1450 up
            link set tap mtu 1450 master k6t up
            addr add {}/24 dev k6t
            addr add {}/120 dev k6t nodad",
            machine.process(),
            BRIDGE[0],
            BRIDGE[1],
        ))
        .unwrap();
    machine
        .ip(&format!(
            "link set eth0 mtu 1450 up
            addr add {}/24 dev eth0
            addr add {}/120 dev eth0 nodad
            route add default via {}
            route add ::/0 via {}",
            MACHINE[0], MACHINE[1], BRIDGE[0], BRIDGE[1],
        ))
        .unwrap();
    let [v4, v6] = MACHINE;
    inside
        .nft(&format!(
            "table inet kubevirt {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat;
                    iifname != k6t meta l4proto {{ tcp, udp }} meta nfproto ipv4 dnat ip to {v4}
                    iifname != k6t meta l4proto {{ tcp, udp }} meta nfproto ipv6 dnat ip6 to {v6}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat;
                    ip saddr {v4} masquerade
                    ip6 saddr {v6} masquerade
                }}
            }}"
        ))
        .unwrap();
    machine
}

/// The machine calls: much, and in datagrams of any size.
fn call(from: &Namespaces, to: IpAddr, what: &str) {
    stream(from, None, to, BULK).expect(what);
    let datagrams = Datagrams::open(from, None, to).unwrap();
    // Of a path that nobody knows yet one may be lost.
    drop(datagrams.exchange(4000));
    for length in [1, 1000, 4000] {
        datagrams.exchange(length).expect(what);
    }
}

#[test]
fn a_masqueraded_machine_calls_and_is_called() {
    let Some(lab) = lab("a_masqueraded_machine") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let far = Pod::add(plane, &lab.topology.nodes[1], &PodSpec { name: "far".into(), ..PodSpec::default() })
        .unwrap();
    let far_server = EchoServer::start(&far.namespaces).unwrap();
    let outside_server = EchoServer::start(&lab.topology.outside).unwrap();
    for hints in [RouteHints::Auto, RouteHints::Never] {
        lab.set_coordinator(hints).unwrap();
        for default_route in DefaultRoute::ALL {
            let name = format!("vm-{}-{}", default_route.nic(), hints.name());
            let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
            wait_for_hints(node, &name, hints).unwrap();
            let machine = start_machine(&lab, &pod);
            let server = EchoServer::start(&machine).unwrap();
            for family in Family::ALL {
                for (whom, to) in [("overlay pod", far.eth0), ("outside", addresses::OUTSIDE)] {
                    call(&machine, to.get(family), &format!("{name} calls the {whom}, {family:?}"));
                }
                let ping = Probe { protocol: Protocol::Ping, to: far.eth0.get(family), bound: None };
                probe::send(&machine, ping).expect(&name);
                let net1 = pod.net1().unwrap();
                let callers: [(&Namespaces, IpAddr); 5] = [
                    (node, net1.get(family)),
                    (node, pod.eth0.get(family)),
                    (&far.namespaces, pod.eth0.get(family)),
                    (&lab.topology.gateway, net1.get(family)),
                    (&lab.topology.outside, net1.get(family)),
                ];
                for (from, to) in callers {
                    call(from, to, &format!("{} calls {name} at {to}, port {}", from.name, bulk::PORT));
                }
            }
            drop(server);
            drop(machine);
            pod.del(plane, node).unwrap();
        }
    }
    lab.set_coordinator(RouteHints::Auto).unwrap();
    drop((far_server, outside_server));
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}
