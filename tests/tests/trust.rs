//! Who is believed: what a pod cannot do by its node link, whatever it tries, what nobody in the underlay can do to help
//! it, and what nobody there can do to it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::MutexGuard;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, sendto,
    setsockopt, socket, sockopt,
};
use serde_json::Value;
use spiderpool_core::coordinator::{host_end_name, node_link_macs};
use spiderpool_core::ip::Family;
use spiderpool_tests::connection::Connection;
use spiderpool_tests::counters::{self, Counters};
use spiderpool_tests::lab::{Lab, lock_lab, macvlan_of, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::probe::{PORT, Probe, Protocol, Server, send};
use spiderpool_tests::topology::{Node, addresses};
use spiderpool_tests::{default_network, node_ports, poll, privilege, service};

fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip(test).then(|| lock_lab(|_| Ok(())).unwrap())
}

/// A pod with net1, and what the node's network stack has received of it that it should not.
struct Attacker<'a> {
    node: &'a Node,
    pod: Pod,
    ids: BTreeMap<String, u16>,
}

impl<'a> Attacker<'a> {
    fn new(lab: &'a Lab, name: &str) -> Self {
        let node = &lab.topology.nodes[0];
        let pod = Pod::add(&lab.topology.plane, node, &spec(name, DefaultRoute::Eth0)).unwrap();
        let sandbox = pod.attachment("eth0");
        let host_end = host_end_name(&sandbox.container).unwrap();
        let (of_eth0, net1) = (default_network::host_end(node.kind.network, &sandbox), pod.net1().unwrap());
        // Behind the filters of the host end, before everything else.
        node.nft(&format!(
            "table inet received {{
                counter from_pod {{}}
                chain prerouting {{
                    type filter hook prerouting priority -500;
                    iifname \"{host_end}\" counter name from_pod
                    iifname \"{of_eth0}\" ip saddr {} counter name from_pod
                    iifname \"{of_eth0}\" ip6 saddr {} counter name from_pod
                }}
            }}",
            net1.v4, net1.v6
        ))
        .unwrap();
        let ids = counters::nic_ids(&pod.namespaces).unwrap();
        Self { node, pod, ids }
    }

    /// Packets of the pod that the node's network stack has received by the node link, or by eth0 with net1's source.
    fn received(&self) -> u64 {
        let counter =
            self.node.output("nft", &["-j", "list", "counter", "inet", "received", "from_pod"]).unwrap();
        let counter: Value = serde_json::from_str(&counter).unwrap();
        let of = |object: &Value| object["counter"]["packets"].as_u64();
        counter["nftables"].as_array().unwrap().iter().find_map(of).unwrap()
    }

    fn counters(&self) -> Counters {
        counters::read(self.node, &self.ids).unwrap()
    }

    fn count(&self, name: &str) -> u64 {
        self.counters().get(name).copied().unwrap_or(0)
    }

    fn counted(&self, reason: &str) -> u64 {
        self.count(&format!("sp0 {reason}"))
    }

    fn net1(&self, family: Family) -> IpAddr {
        self.pod.net1().unwrap().get(family)
    }

    /// Sends to `targets` by sp0 with net1's address, by every protocol that there are sockets for.
    fn attack(&self, targets: &[IpAddr]) {
        for &target in targets {
            let own = self.net1(Family::of(target));
            self.pod.namespaces.run(move || Ok(send_by_node_link(own, target)?)).unwrap();
        }
    }

    /// Nothing of what was sent meanwhile is received, and that is because the filters of the host end have seen it.
    fn is_denied(&self, what: &str, attack: impl FnOnce()) {
        let (received, denied) = (self.received(), self.counted("link_denied"));
        attack();
        assert_eq!(self.received(), received, "{what}: received by the node");
        assert!(self.counted("link_denied") > denied, "{what}: never came to the host end");
    }

    /// Nothing of what was sent meanwhile is received by the node link, or by eth0 with net1's source, although a program has seen it.
    fn avoids_node(&self, what: &str, reason: &str, attack: impl FnOnce()) {
        let seen = || ["eth0", "net1"].map(|nic| self.count(&format!("{nic} {reason}"))).iter().sum::<u64>();
        // By the host end's programs: the kernel's own multicast and neighbor discovery, which may come at any time, are
        // counted apart there.
        let by_link = || ["link_denied", "link_reply"].map(|reason| self.counted(reason));
        let (received, before, by_link_before) = (self.received(), seen(), by_link());
        attack();
        assert!(seen() > before, "{what}: not sent: {:?}", self.counters());
        assert_eq!(self.received(), received, "{what}: received by the node");
        assert_eq!(by_link(), by_link_before, "{what}: sent by the node link");
    }

    fn end(self, lab: &Lab) {
        self.node.nft("delete table inet received").unwrap();
        self.pod.del(&lab.topology.plane, self.node).unwrap();
    }
}

/// As any process may: a socket that is bound to the device and to an address. What the kernel refuses is not sent.
fn send_by_node_link(own: IpAddr, target: IpAddr) -> nix::Result<()> {
    let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    for kind in [SockType::Stream, SockType::Datagram] {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, kind, flags, None)?;
        setsockopt(&socket, sockopt::BindToDevice, &"sp0".into())?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0)))?;
        let to = SockaddrStorage::from(SocketAddr::new(target, PORT));
        if kind == SockType::Stream {
            // It is in progress.
            let _begun = connect(socket.as_raw_fd(), &to);
        } else {
            sendto(socket.as_raw_fd(), b"x", &to, MsgFlags::empty())?;
        }
    }
    Ok(())
}

/// What is behind the node link: the node by all its addresses, a pod, a Service.
fn targets(node: &Node, victim: &Pod, service: spiderpool_tests::dual::Dual) -> Vec<IpAddr> {
    let places = [node.address, node.underlay, victim.eth0, service];
    places.into_iter().flat_map(|place| Family::ALL.map(|family| place.get(family))).collect()
}

#[test]
fn a_pod_opens_nothing_by_its_node_link() {
    let Some(lab) = lab("a_pod_opens_nothing_by_its_node_link") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let attacker = Attacker::new(&lab, "attacker");
    let victim = PodSpec { name: "victim".into(), ..PodSpec::default() };
    let victim = Pod::add(plane, node, &victim).unwrap();
    let cluster_ip = service::create(plane, "guarded", &[victim.eth0]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[victim.eth0]).unwrap();
    let targets = targets(node, &victim, cluster_ip);
    // Whoever has NET_ADMIN in the pod knows the way.
    let (host_mac, _) = node_link_macs(&attacker.pod.attachment("eth0").container);
    let ways: Vec<String> = targets
        .iter()
        .map(|to| {
            let own = attacker.net1(Family::of(*to));
            format!("neigh replace {to} lladdr {host_mac} dev sp0 nud permanent\nroute replace {to} dev sp0 src {own}")
        })
        .collect();
    attacker.pod.namespaces.ip(&ways.join("\n")).unwrap();
    attacker.is_denied("by a socket that is bound to sp0", || attacker.attack(&targets));
    attacker.is_denied("without filters in the pod", || {
        for nic in ["sp0", "eth0", "net1"] {
            attacker.pod.namespaces.output("tc", &["qdisc", "del", "dev", nic, "clsact"]).unwrap();
        }
        attacker.attack(&targets);
        for &to in &targets {
            let probe = Probe { protocol: Protocol::Ping, to, bound: None };
            assert!(send(&attacker.pod.namespaces, probe).is_err(), "ping {to}");
        }
    });
    // The same counter sees what is an answer.
    let received = attacker.received();
    let probe = Probe { protocol: Protocol::Ping, to: attacker.net1(Family::V4), bound: None };
    let back: Vec<String> = targets[..4].iter().map(|to| format!("route replace {to} dev sp0")).collect();
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
    let attacker = Attacker::new(&lab, "fragments");
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

/// The kernel makes the IP header; it needs no module for that.
fn send_sctp_init(own: IpAddr, to: IpAddr) -> nix::Result<()> {
    let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0)))?;
    let mut init = [0; 32];
    init[..4].copy_from_slice(&[0x9c, 0x40, 0x1f, 0x90]);
    init[12] = 1;
    sendto(socket.as_raw_fd(), &init, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty())?;
    Ok(())
}

/// Somebody in the underlay sends to net1 through the node's MAC, in the name of whom the pod would like to "answer".
#[test]
fn an_accomplice_in_the_underlay_opens_nothing_for_the_pod() {
    let Some(lab) = lab("an_accomplice_in_the_underlay") else { return };
    let node = &lab.topology.nodes[0];
    let accomplice: &Namespaces = &lab.topology.gateway;
    let attacker = Attacker::new(&lab, "accomplice");
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
        // What has an overlay pod's address is masqueraded before it comes to the node link.
        for name in [addresses::API_SERVER.get(family), addresses::OUTSIDE.get(family)] {
            let spoofed = attacker.counted("link_spoofed");
            let length = if family == Family::V4 { 32 } else { 128 };
            accomplice.ip(&format!("address add {name}/{length} dev lo")).unwrap();
            for (number, protocol) in (1..).zip([Protocol::Tcp, Protocol::Udp, Protocol::Ping]) {
                poll::until("a packet that is dropped", Duration::from_secs(10), || {
                    assert!(send(accomplice, Probe { protocol, to: net1, bound: Some(name) }).is_err());
                    let dropped = attacker.counted("link_spoofed") - spoofed;
                    anyhow::ensure!(dropped >= number, "{protocol}: {dropped}: {:?}", attacker.counters());
                    Ok(())
                })
                .unwrap();
            }
            accomplice.ip(&format!("address del {name}/{length} dev lo")).unwrap();
        }
        assert_eq!(attacker.received(), received, "the pod was recorded to answer");
        accomplice.ip(&format!("neigh del {net1} dev ul")).unwrap();
    }
    drop(server);
    attacker.end(&lab);
}

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

/// The checksum of a TCP segment that has none yet (RFC 9293, 3.1).
fn checksum(own: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let protocol_and_length = [0, 6, 0, u8::try_from(segment.len()).unwrap()];
    let bytes = [octets(own), octets(to), protocol_and_length.to_vec(), segment.to_vec()].concat();
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

/// A TCP segment without data, out of any window.
fn send_segment(own: IpAddr, to: IpAddr, ports: (u16, u16), flags: u8) -> nix::Result<()> {
    let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0)))?;
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&ports.0.to_be_bytes());
    segment[2..4].copy_from_slice(&ports.1.to_be_bytes());
    (segment[12], segment[13]) = (5 << 4, flags);
    let sum = checksum(own, to, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    sendto(socket.as_raw_fd(), &segment, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty())?;
    Ok(())
}

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
