//! What nobody in the underlay can do to the pod.

use spiderpool_core::ip::Family;
use spiderpool_tests::counters;
use spiderpool_tests::lab::spec;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{Probe, Protocol, Server, send};

use crate::lab;

/// eth0's servers are behind the network policies of the default network. In the underlay anybody can send to net1's MAC.
#[test]
fn the_underlay_does_not_reach_the_cluster_address() {
    let Some(lab) = lab("the_underlay_does_not_reach") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let neighbor: &Namespaces = &lab.topology.gateway;
    for default_route in DefaultRoute::ALL {
        let pod =
            Pod::add(plane, node, &spec(&format!("guarded-{}", default_route.nic()), default_route)).unwrap();
        let server = Server::start(&pod.namespaces).unwrap();
        let ids = counters::nic_ids(&pod.namespaces).unwrap();
        let dropped =
            || counters::read(node, &ids).unwrap().get("net1 cluster_address").copied().unwrap_or(0);
        let mac = pod.namespaces.mac_of("net1").unwrap();
        for family in Family::ALL {
            let (eth0, net1) = (pod.eth0.get(family), pod.net1().unwrap().get(family));
            let send = |protocol, to| send(neighbor, Probe { protocol, to, bound: None });
            // It is asked for by ARP, or by neighbor discovery.
            neighbor.ip(&format!("route add {eth0} dev ul")).unwrap();
            assert!(send(Protocol::Udp, eth0).is_err());
            let found = neighbor.output("ip", &["neigh", "show", &eth0.to_string(), "dev", "ul"]).unwrap();
            assert!(!found.contains("lladdr"), "{found}");
            neighbor.ip(&format!("neigh replace {eth0} lladdr {mac} dev ul nud permanent")).unwrap();
            let before = dropped();
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Ping] {
                assert!(send(protocol, eth0).is_err(), "{protocol} to {eth0}");
                send(protocol, net1).unwrap();
            }
            assert!(dropped() >= before + 3, "none of it came to net1");
            neighbor.ip(&format!("neigh del {eth0} dev ul\nroute del {eth0} dev ul")).unwrap();
        }
        drop(server);
        pod.del(plane, node).unwrap();
    }
}
