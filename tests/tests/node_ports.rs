//! NodePorts whose endpoint is a pod's underlay address: they come to the pod by its node link.
#![forbid(unsafe_code)]

use spiderpool_tests::lab::{lock_lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{Protocol, Server};
use spiderpool_tests::{node_ports, privilege};

#[test]
fn a_node_port_reaches_an_underlay_address_and_its_answers_come_back() {
    if !privilege::root_or_skip("a_node_port_reaches") {
        return;
    }
    let lab = lock_lab(|_| Ok(())).unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for default_route in DefaultRoute::ALL {
        let name = format!("ported-{}", default_route.nic());
        let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
        let server = Server::start(&pod.namespaces).unwrap();
        node_ports::check(&lab, &name, pod.net1().unwrap(), &[Protocol::Tcp, Protocol::Udp]).unwrap();
        drop(server);
        pod.del(plane, node).unwrap();
    }
}
