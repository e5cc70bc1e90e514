//! Connections of a pod that nobody else diverts or cuts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use spiderpool_core::ip::Family;
use spiderpool_ebpf_common::flow_state;
use spiderpool_tests::both_ends::BothEnds;
use spiderpool_tests::connection::Connection;
use spiderpool_tests::lab::spec;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::PORT;
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{counters, poll, service};

use crate::lab;
use crate::packets::send_segment;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Bits of the state of a flow that says that a RST came.
const RESETS: u8 = flow_state::RESET | flow_state::DOUBTFUL_RESET;

/// The entries of one of the dataplane's maps.
fn entries(node: &Namespaces, map: &str) -> Vec<Value> {
    let dump = node.output("bpftool", &["-j", "map", "dump", "pinned", &format!("{}/{map}", counters::PINS)]);
    let dump: Vec<Value> = serde_json::from_str(&dump.unwrap()).unwrap();
    dump.into_iter().map(|mut entry| entry["formatted"].take()).collect()
}

/// A neighbor in the underlay sends in the name of whom the pod talks to, to net1's MAC and through the node's: the connection goes on by
/// the way that it had.
#[test]
fn a_connection_that_the_pod_has_begun_is_not_diverted() {
    let Some(lab) = lab("a_connection_that_the_pod_has_begun") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let peer: &Namespaces = &lab.topology.gateway;
    let pod = Pod::add(plane, node, &spec("talker", DefaultRoute::Net1)).unwrap();
    let ids = counters::nic_ids(&pod.namespaces).unwrap();
    let counted = |reason: &str| {
        let counters = counters::read(node, &ids).unwrap();
        counters.get(reason).copied().unwrap_or(0)
    };
    node.sysctl(&["ipv4/conf/all/rp_filter=0", "ipv4/conf/eth1/rp_filter=0"]).unwrap();
    let (node_mac, own_mac) = (node.mac_of("eth1").unwrap(), pod.namespaces.mac_of("net1").unwrap());
    for (family, port) in Family::ALL.into_iter().zip(7001..) {
        let (net1, to) = (pod.net1().unwrap().get(family), addresses::UNDERLAY_GATEWAY.get(family));
        let connection = Connection::start(&pod.namespaces, peer, to, port).unwrap();
        let sockets = pod.namespaces.output("ss", &["-Htn", "dport", "=", &format!(":{port}")]).unwrap();
        let local = sockets.split_whitespace().nth(3).unwrap();
        let local: u16 = local.rsplit(':').next().unwrap().parse().unwrap();
        // By net1 nothing is recorded of those whom the pod reaches by it anyway.
        for (mac, reason) in [(&node_mac, "sp0 own_flow"), (&own_mac, "net1 not_ours")] {
            let before = counted(reason);
            peer.ip(&format!("neigh replace {net1} lladdr {mac} dev ul nud permanent")).unwrap();
            for flags in [SYN, ACK] {
                peer.run(move || Ok(send_segment(to, net1, (port, local), flags)?)).unwrap();
            }
            peer.ip(&format!("neigh replace {net1} lladdr {own_mac} dev ul nud permanent")).unwrap();
            poll::until("the segment", Duration::from_secs(5), || {
                anyhow::ensure!(counted(reason) > before, "no {reason}: {:?}", counters::read(node, &ids)?);
                Ok(())
            })
            .unwrap();
        }
        let key = |entry: &Value| entry["key"]["local_port"] == local;
        assert!(!entries(node, "arrivals").iter().any(key), "recorded");
        assert!(connection.finish().unwrap().exchanges > 1);
        peer.ip(&format!("neigh del {net1} dev ul")).unwrap();
    }
    pod.del(plane, node).unwrap();
}

/// How long a translation is kept whose connection a RST has ended, and the agent's next round after that.
const SILENCE: Duration = Duration::from_secs(15);

/// Connections that are translated, to a pod and to a Service, get a RST in the name of the other side that the pod's socket takes no
/// notice of. Then nothing is sent for longer than what is closed is remembered.
#[test]
fn a_reset_out_of_window_cuts_no_translated_connection() {
    let Some(lab) = lab("a_reset_out_of_window") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let peer = Pod::add(plane, node, &PodSpec { name: "reset".into(), ..PodSpec::default() }).unwrap();
    let cluster_ip = service::create(plane, "reset", &[peer.eth0]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[peer.eth0]).unwrap();
    let mut open = Vec::new();
    let pods = DefaultRoute::ALL.map(|default_route| {
        let pod =
            Pod::add(plane, node, &spec(&format!("keeper-{}", default_route.nic()), default_route)).unwrap();
        for family in Family::ALL {
            let own = SocketAddr::new(pod.net1().unwrap().get(family), 0);
            // Each end is the first to send after the silence.
            for to in [peer.eth0, peer.eth0, cluster_ip, cluster_ip] {
                let to = SocketAddr::new(to.get(family), PORT);
                let new = BothEnds::open((&pod.namespaces, own), (&peer.namespaces, PORT), to).unwrap();
                assert_eq!(new.seen().unwrap().ip(), pod.eth0.get(family), "translated");
                new.exchange(1).unwrap();
                open.push((to, new));
            }
        }
        pod
    });
    // From the node: what is forwarded passes its connection tracking, which is not everywhere so strict.
    node.sysctl(&["ipv6/ip_nonlocal_bind=1"]).unwrap();
    for (to, connection) in &open {
        let seen = connection.seen().unwrap();
        node.run(|| Ok(send_segment(to.ip(), seen.ip(), (to.port(), seen.port()), RST)?)).unwrap();
    }
    node.sysctl(&["ipv6/ip_nonlocal_bind=0"]).unwrap();
    for (to, connection) in &open {
        let local = connection.client.local_addr().unwrap().port();
        poll::until("the RST at the programs", Duration::from_secs(10), || {
            let of = |entry: &&Value| entry["key"]["local_port"] == local && entry["key"]["tuple"] == 0;
            let states: Vec<_> =
                entries(node, "nat").iter().filter(of).map(|e| e["value"]["state"].clone()).collect();
            let is_seen = |state: &Value| state.as_u64().is_some_and(|state| state as u8 & RESETS != 0);
            anyhow::ensure!(states.iter().any(is_seen), "{to} from port {local}: {states:?}");
            Ok(())
        })
        .unwrap();
    }
    let since = Instant::now();
    poll::until("silence", SILENCE * 2, || {
        anyhow::ensure!(since.elapsed() > SILENCE, "not yet");
        Ok(())
    })
    .unwrap();
    for (number, (to, connection)) in (0..).zip(&open) {
        let exchanged = if number % 2 == 0 {
            connection.exchange(number)
        } else {
            connection.exchange_from_server(number)
        };
        exchanged.unwrap_or_else(|error| panic!("connection {number} to {to}: {error:#}"));
    }
    drop(open);
    plane.kubectl(&["delete", "service", "reset"]).unwrap();
    for pod in pods {
        pod.del(plane, node).unwrap();
    }
    peer.del(plane, node).unwrap();
}
