//! Connections of a pod that nobody else diverts or cuts.

use std::time::Duration;

use serde_json::Value;
use spiderpool_core::ip::Family;
use spiderpool_tests::connection::Connection;
use spiderpool_tests::lab::spec;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{counters, poll};

use crate::lab;
use crate::packets::send_segment;

/// A neighbor in the underlay sends in the name of whom the pod talks to, to net1's MAC and through the node's: the connection goes on by
/// the way that it had.
#[test]
fn a_connection_that_the_pod_has_begun_is_not_diverted() {
    const SYN: u8 = 2;
    const ACK: u8 = 16;
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
        let arrivals =
            node.output("bpftool", &["-j", "map", "dump", "pinned", &format!("{}/arrivals", counters::PINS)]);
        let arrivals: Value = serde_json::from_str(&arrivals.unwrap()).unwrap();
        let key = |entry: &Value| entry["formatted"]["key"]["local_port"] == local;
        assert!(!arrivals.as_array().unwrap().iter().any(key), "recorded");
        assert!(connection.finish().unwrap().exchanges > 1);
        peer.ip(&format!("neigh del {net1} dev ul")).unwrap();
    }
    pod.del(plane, node).unwrap();
}
