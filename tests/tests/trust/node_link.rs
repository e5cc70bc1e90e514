//! What a pod cannot do by its node link, whatever it tries, and what nobody else can do by it or for the pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use spiderpool_core::ip::Family;
use spiderpool_testbox::calico;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::lab::{macvlan_of, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{PORT, Probe, Protocol, Server, send};
use spiderpool_tests::topology::{Node, addresses};
use spiderpool_tests::{counters, node_ports, poll, service};

use crate::attacker::{Attacker, Target};
use crate::lab;
use crate::packets::send_sctp_init;

/// What is behind the node link: the node by all its addresses, a pod, a Service.
fn targets(node: &Node, victim: &Pod, service: Dual) -> Vec<Target> {
    let places = [node.address, node.underlay, victim.eth0, service];
    places.into_iter().flat_map(|place| Family::ALL.map(|family| place.get(family).into())).collect()
}

#[test]
fn a_pod_opens_nothing_by_its_node_link() {
    let Some(lab) = lab("a_pod_opens_nothing_by_its_node_link") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let attacker = Attacker::new(&lab, "attacker", DefaultRoute::Eth0);
    let victim = PodSpec { name: "victim".into(), ..PodSpec::default() };
    let victim = Pod::add(plane, node, &victim).unwrap();
    let cluster_ip = service::create(plane, "guarded", &[victim.eth0]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[victim.eth0]).unwrap();
    let targets = targets(node, &victim, cluster_ip);
    attacker.open_ways(&targets);
    attacker.is_denied("by a socket that is bound to sp0", || attacker.attack(&targets));
    attacker.is_denied("without filters in the pod", || {
        attacker.remove_programs();
        attacker.attack(&targets);
        for to in targets.iter().map(|target| target.address) {
            let probe = Probe { protocol: Protocol::Ping, to, bound: None };
            assert!(send(&attacker.pod.namespaces, probe).is_err(), "ping {to}");
        }
    });
    // The same counter sees what is an answer.
    let received = attacker.received();
    let probe = Probe { protocol: Protocol::Ping, to: attacker.net1(Family::V4), bound: None };
    let back: Vec<String> =
        targets[..4].iter().map(|to| format!("route replace {} dev sp0", to.address)).collect();
    attacker.pod.namespaces.ip(&back.join("\n")).unwrap();
    send(node, probe).unwrap();
    assert!(attacker.received() > received);
    plane.kubectl(&["delete", "service", "guarded"]).unwrap();
    victim.del(plane, node).unwrap();
    attacker.end(&lab);
}

/// Neither datagrams in fragments nor protocols without flows leave by eth0 with net1's source, or past its policies by the node
/// link: the ones are translated, the others leave by net1.
#[test]
fn what_is_too_long_or_has_no_flow_is_no_way_past_the_policies() {
    let Some(lab) = lab("what_is_too_long") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let attacker = Attacker::new(&lab, "fragments", DefaultRoute::Eth0);
    let victim = PodSpec { name: "longing".into(), ..PodSpec::default() };
    let victim = Pod::add(plane, node, &victim).unwrap();
    for family in Family::ALL {
        for to in [node.address.get(family), victim.eth0.get(family)] {
            let own = attacker.net1(family);
            attacker.avoids_node(&format!("3000 bytes to {to}"), "fragment_followed", || {
                attacker
                    .pod
                    .namespaces
                    .run(move || {
                        let socket = UdpSocket::bind((own, 0))?;
                        socket.send_to(&[7; 3000], (to, PORT))?;
                        Ok(())
                    })
                    .unwrap();
            });
            attacker.avoids_node(&format!("SCTP to {to}"), "other_protocol", || {
                attacker.pod.namespaces.run(move || Ok(send_sctp_init(own, to)?)).unwrap();
            });
        }
    }
    victim.del(plane, node).unwrap();
    attacker.end(&lab);
}

/// What an accomplice sends to net1 through the node in the name of another is dropped at the node link.
fn is_dropped_as_spoofed(accomplice: &Namespaces, attacker: &Attacker<'_>, name: IpAddr) {
    let (family, spoofed) = (Family::of(name), attacker.counted("link_spoofed"));
    let to = attacker.net1(family);
    let own = format!("{name}/{} dev lo", family.bits());
    accomplice.ip(&format!("address add {own}")).unwrap();
    for (number, protocol) in (1..).zip([Protocol::Tcp, Protocol::Udp, Protocol::Ping]) {
        poll::until("a packet that is dropped", Duration::from_secs(10), || {
            assert!(send(accomplice, Probe { protocol, to, bound: Some(name) }).is_err());
            let dropped = attacker.counted("link_spoofed") - spoofed;
            anyhow::ensure!(dropped >= number, "{protocol}: {dropped}: {:?}", attacker.counters());
            Ok(())
        })
        .unwrap();
    }
    accomplice.ip(&format!("address del {own}")).unwrap();
}

/// Somebody in the underlay sends to net1 through the node's MAC, in the name of whom the pod would like to "answer".
#[test]
fn an_accomplice_in_the_underlay_opens_nothing_for_the_pod() {
    let Some(lab) = lab("an_accomplice_in_the_underlay") else { return };
    let node = &lab.topology.nodes[0];
    let accomplice: &Namespaces = &lab.topology.gateway;
    let attacker = Attacker::new(&lab, "accomplice", DefaultRoute::Eth0);
    let server = Server::start(&attacker.pod.namespaces).unwrap();
    // Strict reverse path would do it for IPv4, but nodes with several NICs are without.
    node.sysctl(&["ipv4/conf/all/rp_filter=0", "ipv4/conf/eth1/rp_filter=0"]).unwrap();
    let mac = node.mac_of("eth1").unwrap();
    for family in Family::ALL {
        let net1 = attacker.net1(family);
        accomplice.ip(&format!("neigh replace {net1} lladdr {mac} dev ul nud permanent")).unwrap();
        // In its own name it may, so what follows does come to the node link.
        let received = attacker.received();
        let own = addresses::UNDERLAY_GATEWAY.get(family);
        // Its answer to the pod's solicitation would take the same way, on which its hop limit is lowered.
        let known =
            format!("neigh replace {own} lladdr {} dev net1 nud permanent", accomplice.mac_of("ul").unwrap());
        attacker.pod.namespaces.ip(&known).unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Ping] {
            let answer = send(accomplice, Probe { protocol, to: net1, bound: Some(own) });
            assert!(answer.is_ok(), "{protocol} to {net1}: {answer:?}, {:?}", attacker.counters());
        }
        assert!(attacker.received() > received);
        let received = attacker.received();
        // What has an overlay pod's address is masqueraded before it comes to the node link, here: see below.
        for name in [addresses::API_SERVER.get(family), addresses::OUTSIDE.get(family)] {
            is_dropped_as_spoofed(accomplice, &attacker, name);
        }
        assert_eq!(attacker.received(), received, "the pod was recorded to answer");
        accomplice.ip(&format!("neigh del {net1} dev ul")).unwrap();
    }
    drop(server);
    attacker.end(&lab);
}

/// The same in the name of overlay pods, of this node and of another, where the default network does not masquerade.
#[test]
fn an_accomplice_in_an_overlay_pods_name_opens_nothing_for_the_pod() {
    let Some(lab) = lab("an_accomplice_in_an_overlay_pods_name") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let accomplice: &Namespaces = &lab.topology.gateway;
    let attacker = Attacker::new(&lab, "overlaid", DefaultRoute::Eth0);
    let named = Pod::add(plane, node, &PodSpec { name: "named".into(), ..PodSpec::default() }).unwrap();
    let server = Server::start(&attacker.pod.namespaces).unwrap();
    node.nft(&calico::without_masquerading()).unwrap();
    node.sysctl(&["ipv4/conf/all/rp_filter=0", "ipv4/conf/eth1/rp_filter=0"]).unwrap();
    let mac = node.mac_of("eth1").unwrap();
    let elsewhere = Dual::new(Ipv4Addr::new(10, 244, 9, 9), Ipv6Addr::new(0xfd44, 0, 0, 9, 0, 0, 0, 9));
    for family in Family::ALL {
        let net1 = attacker.net1(family);
        accomplice.ip(&format!("neigh replace {net1} lladdr {mac} dev ul nud permanent")).unwrap();
        let received = attacker.received();
        for name in [named.eth0, elsewhere].map(|name| name.get(family)) {
            is_dropped_as_spoofed(accomplice, &attacker, name);
        }
        assert_eq!(attacker.received(), received, "the pod was recorded to answer");
        accomplice.ip(&format!("neigh del {net1} dev ul")).unwrap();
    }
    node.nft(&format!("delete table inet calico-like\n{}", calico::rules(addresses::OVERLAY))).unwrap();
    drop(server);
    named.del(plane, node).unwrap();
    attacker.end(&lab);
}

/// Otherwise an ingress policy of eth0 that refuses the neighbor would be no use: it would ask at net1's address.
#[test]
fn with_node_link_node_no_other_pod_comes_by_the_link() {
    let Some(lab) = lab("with_node_link_node") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let settings = serde_json::json!({"ebpf": {"nodeLink": "node"}});
    let mut guarded = spec("guarded", DefaultRoute::Eth0);
    guarded.networks = vec![macvlan_of("eth1", "underlay-v4", "underlay-v6", &settings)];
    let guarded = Pod::add(plane, node, &guarded).unwrap();
    let open = Pod::add(plane, node, &spec("open", DefaultRoute::Eth0)).unwrap();
    let neighbor = PodSpec { name: "refused".into(), ..PodSpec::default() };
    let neighbor = Pod::add(plane, node, &neighbor).unwrap();
    let servers = [&guarded, &open].map(|pod| Server::start(&pod.namespaces).unwrap());
    let ids = counters::nic_ids(&guarded.namespaces).unwrap();
    let refused = || counters::read(node, &ids).unwrap().get("sp0 link_neighbor").copied().unwrap_or(0);
    for family in Family::ALL {
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Ping] {
            let ask = |from: &Namespaces, of: &Pod| {
                send(from, Probe { protocol, to: of.net1().unwrap().get(family), bound: None })
            };
            assert!(ask(&neighbor.namespaces, &open).is_ok(), "{protocol} {family:?}");
            let before = refused();
            assert!(ask(&neighbor.namespaces, &guarded).is_err(), "{protocol} {family:?}");
            assert!(refused() > before, "{protocol} {family:?}");
            assert!(ask(node, &guarded).is_ok(), "{protocol} {family:?}");
        }
    }
    node_ports::check(&lab, "guarded", guarded.net1().unwrap(), &[Protocol::Tcp, Protocol::Udp]).unwrap();
    drop(servers);
    for pod in [guarded, open, neighbor] {
        pod.del(plane, node).unwrap();
    }
}
