//! Associations of SCTP, which the programs do not translate, by every way that needs no translation. Runs on kernels that have the protocol,
//! which `cargo xtask vmtest` brings.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use spiderpool_core::ip::Family;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::lab::{Lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{privilege, sctp};

const PORT: u16 = 7900;

/// Who opens an association with whom.
struct Way<'a> {
    name: &'static str,
    from: &'a Namespaces,
    bound: Option<Dual>,
    at: &'a Namespaces,
    to: Dual,
    /// Whom the server sees, if it is not a node: that has several addresses.
    seen: Option<Dual>,
}

#[test]
fn associations_go_and_come_by_every_nic() {
    let test = "associations_go_and_come_by_every_nic";
    if !privilege::root_or_skip(test) || !sctp::known_or_skip(test).unwrap() {
        return;
    }
    let lab = Lab::start(2, |_| ()).unwrap();
    let plane = &lab.topology.plane;
    let [node, other] = lab.topology.nodes.as_slice() else { panic!("two nodes") };
    let far = Pod::add(plane, other, &spec("far", DefaultRoute::Eth0)).unwrap();
    for default_route in DefaultRoute::ALL {
        let name = format!("pod-{}", default_route.nic());
        let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
        let (net1, far_net1) = (pod.net1().unwrap(), far.net1().unwrap());
        let neighbor: &Namespaces = &lab.topology.gateway;
        let inside: &Namespaces = &pod.namespaces;
        let way = |name, from, bound, at, to, seen| Way { name, from, bound, at, to, seen };
        let ways = [
            way("node to net1", node, None, inside, net1, None),
            way("neighbor to net1", neighbor, None, inside, net1, Some(addresses::UNDERLAY_GATEWAY)),
            way("node to eth0", node, None, inside, pod.eth0, None),
            way("net1 to net1", inside, Some(net1), &far.namespaces, far_net1, Some(net1)),
            way("pod to overlay pod", inside, None, &far.namespaces, far.eth0, Some(pod.eth0)),
            way("pod to its node", inside, None, node, node.address, Some(pod.eth0)),
        ];
        for family in Family::ALL {
            for way in &ways {
                let to = SocketAddr::new(way.to.get(family), PORT);
                let bound = way.bound.map(|bound| bound.get(family));
                let peer = sctp::exchange(way.from, bound, way.at, to);
                let peer = peer.unwrap_or_else(|error| panic!("{name}, {}, {to}: {error:#}", way.name));
                if let Some(seen) = way.seen {
                    assert_eq!(peer, seen.get(family), "{name}, {}, {to}", way.name);
                }
            }
        }
        pod.del(plane, node).unwrap();
    }
    far.del(plane, other).unwrap();
}
