//! What a pod cannot reach past its network policies: Services, and addresses that nodes have for themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use spiderpool_core::ip::Family;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::node_ports::open_node_port;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{PORT, Probe, Protocol, Server, send_to};
use spiderpool_tests::topology::Node;
use spiderpool_tests::{poll, service};

use crate::arrivals::{Arrivals, counted};
use crate::attacker::{Attacker, SOFTIRQ_LIMIT, Target, host_end_of_eth0};
use crate::lab;
use crate::packets::send_sctp_init;

const PROXY_LIMIT: Duration = Duration::from_secs(20);

/// Of the node's end of the default network's tunnel, which is a pod's address that no pod has, and of something else.
const TUNNELS: [Dual; 2] = [
    Dual::new(Ipv4Addr::new(10, 244, 1, 250), Ipv6Addr::new(0xfd44, 0, 0, 1, 0, 0, 0, 0xfa)),
    Dual::new(Ipv4Addr::new(192, 0, 2, 7), Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 7)),
];

fn both(dual: Dual) -> [IpAddr; 2] {
    Family::ALL.map(|family| dual.get(family))
}

/// A device with these addresses. Its kind makes no difference to who reaches them, and every kernel has bridges.
fn add_tunnels(node: &Node) {
    let addresses = TUNNELS
        .map(|own| format!("addr add {}/32 dev tunnel\naddr add {}/128 dev tunnel nodad\n", own.v4, own.v6));
    node.ip(&format!("link add tunnel type bridge\nlink set tunnel up\n{}", addresses.concat())).unwrap();
}

/// The ports of a Service whose endpoint is another pod, and the node's own servers at addresses that belong to no NIC of its
/// networks: a pod that is to reach them has eth0 for it.
#[test]
fn the_node_link_leads_to_no_node_port_and_no_tunnel_of_the_node() {
    let Some(lab) = lab("the_node_link_leads_to_no_node_port") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let attacker = Attacker::new(&lab, "caller", DefaultRoute::Eth0);
    let victim = PodSpec { name: "published".into(), ..PodSpec::default() };
    let victim = Pod::add(plane, node, &victim).unwrap();
    add_tunnels(node);
    let own: Vec<IpAddr> = TUNNELS.into_iter().flat_map(both).collect();
    let servers = [Server::start(&victim.namespaces).unwrap(), Server::start_at(node, &own).unwrap()];
    let cluster_ip = service::create(plane, "published", &[victim.eth0]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[victim.eth0]).unwrap();
    let [tcp, udp] = open_node_port(plane, "published", "Cluster").unwrap();
    let places = [node.address, node.underlay, TUNNELS[0], TUNNELS[1]];
    let ports = places.into_iter().flat_map(both).map(|address| Target { address, tcp, udp });
    let targets: Vec<Target> = ports.chain(own.iter().copied().map(Target::from)).collect();
    let arrived =
        Arrivals::count(&victim.namespaces, &[&format!("meta l4proto {{ tcp, udp }} th dport {PORT}")]);
    // All of them are there for whoever comes by eth0.
    for target in &targets {
        for (protocol, port) in [(Protocol::Tcp, target.tcp), (Protocol::Udp, target.udp)] {
            let probe = Probe { protocol, to: target.address, bound: None };
            poll::until(&format!("{protocol} to {target:?} by eth0"), PROXY_LIMIT, || {
                send_to(&attacker.pod.namespaces, probe, port)
            })
            .unwrap();
        }
    }
    let before = arrived.packets();
    assert!(before > 0, "nothing is counted at the endpoint");
    attacker.gets_nowhere("without rights in the pod", || attacker.attack(&targets));
    attacker.open_ways(&targets);
    attacker.is_denied("by routes and neighbors", || attacker.attack(&targets));
    attacker.is_denied("without filters in the pod", || {
        attacker.remove_programs();
        attacker.attack(&targets);
    });
    assert_eq!(arrived.packets(), before, "something has arrived at the endpoint");
    arrived.end();
    drop(servers);
    node.ip("link del tunnel").unwrap();
    plane.kubectl(&["delete", "service", "published"]).unwrap();
    victim.del(plane, node).unwrap();
    attacker.end(&lab);
}

/// What is neither established nor a neighbor's business, and comes from this pod by the default network, is dropped on the node,
/// where agents of network policies do it: behind kube-proxy's translation.
struct EgressPolicy<'a> {
    node: &'a Node,
}

impl<'a> EgressPolicy<'a> {
    fn deny_all(node: &'a Node, pod: &Pod) -> Self {
        let host_end = host_end_of_eth0(node, pod);
        let chain = |hook: &str| {
            format!(
                "chain {hook} {{
                    type filter hook {hook} priority filter - 1;
                    iifname != \"{host_end}\" accept
                    ct state established,related accept
                    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
                    counter name refused drop
                }}"
            )
        };
        node.nft(&format!(
            "table inet network-policy {{\ncounter refused {{}}\n{}\n{}\n}}",
            chain("forward"),
            chain("input")
        ))
        .unwrap();
        Self { node }
    }

    fn refused(&self) -> u64 {
        counted(self.node, "network-policy", "refused")
    }

    fn end(self) {
        self.node.nft("delete table inet network-policy").unwrap();
    }
}

/// A Service of TCP, UDP and SCTP.
fn create_service(plane: &ControlPlane, name: &str, endpoint: Dual) -> Dual {
    let cluster_ip = service::create(plane, name, &[endpoint]).unwrap();
    let sctp = json!({"name": "sctp", "protocol": "SCTP", "port": PORT});
    for (object, path) in [
        (format!("endpointslice/{name}-v4"), "/ports/-"),
        (format!("endpointslice/{name}-v6"), "/ports/-"),
        (format!("service/{name}"), "/spec/ports/-"),
    ] {
        let patch = json!([{"op": "add", "path": path, "value": sctp}]).to_string();
        plane.kubectl(&["patch", &object, "--type=json", "-p", &patch]).unwrap();
    }
    cluster_ip
}

/// A datagram in fragments, and a protocol that is not translated, both with net1's source, to a Service whose endpoint the pod may not
/// reach by eth0: the one is refused like all others, the other leaves by net1, and neither tries the node link.
#[test]
fn an_egress_policy_holds_for_fragments_and_protocols_without_flows() {
    let Some(lab) = lab("an_egress_policy_holds_for_fragments") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for default_route in DefaultRoute::ALL {
        let attacker = Attacker::new(&lab, &format!("long-{}", default_route.nic()), default_route);
        let pod = &attacker.pod.namespaces;
        let name = format!("denied-{}", default_route.nic());
        let victim = Pod::add(plane, node, &PodSpec { name: name.clone(), ..PodSpec::default() }).unwrap();
        let cluster_ip = create_service(plane, &name, victim.eth0);
        let arrived =
            Arrivals::count(&victim.namespaces, &["meta l4proto { udp, sctp }", "exthdr frag exists"]);
        let long = |own: IpAddr, to: IpAddr| {
            pod.run(move || Ok(UdpSocket::bind((own, 0))?.send_to(&[7; 3000], (to, PORT))?)).unwrap();
        };
        let init = |own: IpAddr, to: IpAddr| pod.run(move || Ok(send_sctp_init(own, to)?)).unwrap();
        for family in Family::ALL {
            let (eth0, net1, to) =
                (attacker.pod.eth0.get(family), attacker.net1(family), cluster_ip.get(family));
            for (what, own, send) in [
                ("fragments", net1, &long as &dyn Fn(IpAddr, IpAddr)),
                ("SCTP by eth0's address", eth0, &init),
            ] {
                let before = arrived.packets();
                poll::until(&format!("{what} to {to} at its endpoint"), PROXY_LIMIT, || {
                    send(own, to);
                    ensure!(arrived.packets() > before, "nothing arrives: {:?}", attacker.counters());
                    Ok(())
                })
                .unwrap();
            }
        }
        let policy = EgressPolicy::deny_all(node, &attacker.pod);
        let before = arrived.packets();
        for family in Family::ALL {
            let (net1, to) = (attacker.net1(family), cluster_ip.get(family));
            let refused = policy.refused();
            attacker.avoids_node(&format!("3000 bytes to {to}"), "fragment_followed", || long(net1, to));
            poll::until(&format!("3000 bytes to {to} at the policy"), SOFTIRQ_LIMIT, || {
                ensure!(policy.refused() > refused, "{:?}", attacker.counters());
                Ok(())
            })
            .unwrap();
            attacker.avoids_node(&format!("SCTP to {to}"), "other_protocol", || init(net1, to));
        }
        attacker.open_ways(&both(cluster_ip).map(Target::from));
        let attack = || {
            for to in both(cluster_ip) {
                long(attacker.net1(Family::of(to)), to);
                init(attacker.net1(Family::of(to)), to);
            }
        };
        attacker.is_denied("by routes and neighbors", attack);
        attacker.remove_programs();
        attacker.is_denied("without filters in the pod", attack);
        assert_eq!(arrived.packets(), before, "something has arrived at the endpoint");
        policy.end();
        arrived.end();
        plane.kubectl(&["delete", "service", &name]).unwrap();
        victim.del(plane, node).unwrap();
        attacker.end(&lab);
    }
}
