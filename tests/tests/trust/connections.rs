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

/// How long a flow is kept whose connection a RST has ended, and the agent's next round after that.
const SILENCE: Duration = Duration::from_secs(15);

/// An open connection, and who can send to the pod in the name of its other side.
struct Attacked<'a> {
    connection: BothEnds,
    by: &'a Namespaces,
    /// The other side, as the pod sees it.
    other: SocketAddr,
    /// Where its packets to the pod go.
    to: SocketAddr,
    /// The port of the pod's socket.
    own_port: u16,
    /// The map that has the flow, and the bits of its state of which the RST sets one.
    map: &'static str,
    states: u8,
}

impl<'a> Attacked<'a> {
    /// Opened by the pod with net1's address, and translated.
    fn translated(node: &'a Namespaces, pod: &Pod, peer: &Pod, other: SocketAddr) -> Self {
        let family = Family::of(other.ip());
        let own = SocketAddr::new(pod.net1().unwrap().get(family), 0);
        let connection = BothEnds::open((&pod.namespaces, own), (&peer.namespaces, PORT), other).unwrap();
        let (to, own_port) = (connection.seen().unwrap(), connection.client.local_addr().unwrap().port());
        assert_eq!(to.ip(), pod.eth0.get(family), "translated");
        let states = flow_state::RESET | flow_state::DOUBTFUL_RESET;
        Self { connection, by: node, other, to, own_port, map: "nat", states }
    }

    /// Opened by a neighbor who comes by the node link.
    fn called(neighbor: &'a Namespaces, pod: &Pod, family: Family) -> Self {
        let own = SocketAddr::new(addresses::UNDERLAY_GATEWAY.get(family), 0);
        let to = SocketAddr::new(pod.net1().unwrap().get(family), PORT);
        let connection = BothEnds::open((neighbor, own), (&pod.namespaces, PORT), to).unwrap();
        let other = connection.seen().unwrap();
        let states = flow_state::FIN_RECEIVED;
        Self { connection, by: neighbor, other, to, own_port: PORT, map: "link_flows", states }
    }

    fn reset(&self) {
        let (other, to) = (self.other, self.to);
        self.by.run(move || Ok(send_segment(other.ip(), to.ip(), (other.port(), to.port()), RST)?)).unwrap();
    }

    /// Until the map has the flow with what the RST has changed.
    fn wait_until_noted(&self, node: &Namespaces) {
        let ports = (self.own_port, self.other.port());
        poll::until("the RST at the programs", Duration::from_secs(10), || {
            let entries = entries(node, self.map);
            let is_its = |key: &Value| {
                key["tuple"] == 0 && key["local_port"] == ports.0 && key["remote_port"] == ports.1
            };
            let state =
                |entry: &Value| entry["value"]["state"].as_u64().and_then(|state| u8::try_from(state).ok());
            let states: Vec<_> = entries.iter().filter(|e| is_its(&e["key"])).filter_map(state).collect();
            anyhow::ensure!(
                states.iter().any(|state| state & self.states != 0),
                "{}, {} to {}: {states:?}",
                self.map,
                self.other,
                self.to
            );
            Ok(())
        })
        .unwrap();
    }
}

/// Connections get a RST in the name of the other side that the pod's socket takes no notice of: to a pod and a Service, which are
/// translated, and of a neighbor by the node link. Then nothing is sent for longer than what is closed is remembered.
#[test]
fn a_reset_out_of_window_cuts_no_connection() {
    let Some(lab) = lab("a_reset_out_of_window") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let neighbor: &Namespaces = &lab.topology.gateway;
    let peer = Pod::add(plane, node, &PodSpec { name: "reset".into(), ..PodSpec::default() }).unwrap();
    let cluster_ip = service::create(plane, "reset", &[peer.eth0]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[peer.eth0]).unwrap();
    // What a node forwards passes its connection tracking, which knows such a RST, and not all nodes drop it.
    node.nft("flush chain inet calico-like forward").unwrap();
    let node_mac = node.mac_of("eth1").unwrap();
    let mut attacked = Vec::new();
    let pods = DefaultRoute::ALL.map(|default_route| {
        let name = format!("keeper-{}", default_route.nic());
        let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
        let own_mac = neighbor.mac_of("ul").unwrap();
        for family in Family::ALL {
            let (net1, other) = (pod.net1().unwrap().get(family), addresses::UNDERLAY_GATEWAY.get(family));
            neighbor.ip(&format!("neigh replace {net1} lladdr {node_mac} dev ul nud permanent")).unwrap();
            // As in `an_accomplice_in_the_underlay_opens_nothing_for_the_pod`.
            let known = format!("neigh replace {other} lladdr {own_mac} dev net1 nud permanent");
            pod.namespaces.ip(&known).unwrap();
            // Each end is the first to send after the silence.
            for _ in 0..2 {
                for to in [peer.eth0, cluster_ip] {
                    let to = SocketAddr::new(to.get(family), PORT);
                    attacked.push(Attacked::translated(node, &pod, &peer, to));
                }
                attacked.push(Attacked::called(neighbor, &pod, family));
            }
        }
        pod
    });
    for (number, attacked) in (0..).zip(&attacked) {
        attacked.connection.exchange(number).unwrap();
    }
    node.sysctl(&["ipv6/ip_nonlocal_bind=1"]).unwrap();
    attacked.iter().for_each(Attacked::reset);
    node.sysctl(&["ipv6/ip_nonlocal_bind=0"]).unwrap();
    for attacked in &attacked {
        attacked.wait_until_noted(node);
    }
    let since = Instant::now();
    poll::until("silence", SILENCE * 2, || {
        anyhow::ensure!(since.elapsed() > SILENCE, "not yet");
        Ok(())
    })
    .unwrap();
    // Without it the neighbor would be answered by net1, and notice nothing.
    for attacked in &attacked {
        attacked.wait_until_noted(node);
    }
    for (number, Attacked { connection, other, to, .. }) in (0..).zip(&attacked) {
        let is_first_half = number % 6 < 3;
        let exchanged =
            if is_first_half { connection.exchange(number) } else { connection.exchange_from_server(number) };
        exchanged.unwrap_or_else(|error| panic!("connection {number} of {other} with {to}: {error:#}"));
    }
    drop(attacked);
    node.nft("add rule inet calico-like forward ct state invalid drop").unwrap();
    for family in Family::ALL {
        for pod in &pods {
            neighbor.ip(&format!("neigh del {} dev ul", pod.net1().unwrap().get(family))).unwrap();
        }
    }
    plane.kubectl(&["delete", "service", "reset"]).unwrap();
    for pod in pods {
        pod.del(plane, node).unwrap();
    }
    peer.del(plane, node).unwrap();
}
