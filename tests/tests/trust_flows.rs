//! Who is believed: nobody in the underlay changes where a flow goes that the pod has begun, and neither does a change of what is
//! steered, nor a gateway that fails over.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use spiderpool_core::ip::Family;
use spiderpool_tests::both_ends::BothEnds;
use spiderpool_tests::counters;
use spiderpool_tests::fixture::RouteHints;
use spiderpool_tests::lab::{Lab, lock_lab, spec, wait_for_hints};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{PORT, Server};
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{poll, privilege};

/// How long an answer may take. A lost datagram is not repeated, so waiting longer hides none.
const ANSWERED: Duration = Duration::from_secs(5);
/// How long the agent may take to see what has changed in a pod or in the cluster.
const AGENT_LIMIT: Duration = Duration::from_secs(20);

fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip(test).then(|| lock_lab(|_| Ok(())).unwrap())
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    }
}

/// A UDP socket of the pod that is not connected.
fn open(pod: &Namespaces, family: Family, port: u16) -> UdpSocket {
    pod.run(move || {
        let socket = UdpSocket::bind((any(family), port))?;
        socket.set_read_timeout(Some(ANSWERED))?;
        Ok(socket)
    })
    .unwrap()
}

/// By which address the server has seen the pod; answers are read until one comes from there.
fn ask(socket: &UdpSocket, to: SocketAddr) -> Result<IpAddr> {
    socket.send_to(b"who?", to)?;
    let deadline = Instant::now() + ANSWERED;
    loop {
        let mut bytes = [0; 128];
        let (length, from) = socket.recv_from(&mut bytes).context("no answer")?;
        if from == to && &bytes[..length] != b"forged" {
            let answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
            return Ok(answer.split(' ').next().context("an empty answer")?.parse()?);
        }
        anyhow::ensure!(Instant::now() < deadline, "only forged answers");
    }
}

/// Somebody in the underlay who sends in the name of others, to net1's MAC or through the node's.
struct Forger<'a> {
    machine: &'a Namespaces,
    net1: IpAddr,
}

impl Forger<'_> {
    fn send(&self, from: SocketAddr, port: u16, mac: &str) {
        let (net1, length) = (self.net1, if from.is_ipv4() { 32 } else { 128 });
        let nodad = if from.is_ipv4() { "" } else { "nodad" };
        self.machine
            .ip(&format!(
                "address replace {}/{length} dev lo {nodad}
                neigh replace {net1} lladdr {mac} dev ul nud permanent",
                from.ip()
            ))
            .unwrap();
        self.machine
            .run(move || {
                let socket = UdpSocket::bind(from)?;
                for _ in 0..3 {
                    socket.send_to(b"forged", (net1, port))?;
                }
                Ok(())
            })
            .unwrap();
        self.machine
            .ip(&format!("address del {}/{length} dev lo\nneigh del {net1} dev ul", from.ip()))
            .unwrap();
    }
}

/// Datagrams in the name of a server, before and while the pod asks it by a socket that is not connected: the queries go
/// where they always went, as the address shows by which the server sees them.
#[test]
fn forged_datagrams_divert_no_query() {
    let Some(lab) = lab("forged_datagrams_divert_no_query") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let machine: &Namespaces = &lab.topology.gateway;
    let overlay = Pod::add_sandbox(node, "asked", "0000-asked").unwrap();
    let servers = [
        (Server::start(&lab.topology.outside).unwrap(), addresses::OUTSIDE),
        (Server::start(&overlay.namespaces).unwrap(), overlay.eth0),
        (Server::start_at(node, &Family::ALL.map(|family| node.address.get(family))).unwrap(), node.address),
    ];
    // A node that believes any name, as upstream's default is.
    node.sysctl(&["ipv4/conf/all/rp_filter=0", "ipv4/conf/eth1/rp_filter=0"]).unwrap();
    for default_route in DefaultRoute::ALL {
        let name = format!("asker-{}", default_route.nic());
        let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
        let macs = [pod.namespaces.mac_of("net1").unwrap(), node.mac_of("eth1").unwrap()];
        // A port of the kernel's choice; of a range of the pod's own; a fixed one on both sides, where the pod has spoken first.
        for (range, port) in [(None, 0), (Some((20_000u16, 20_100)), 0), (None, PORT)] {
            if let Some((first, last)) = range {
                pod.namespaces.sysctl(&[&format!("ipv4/ip_local_port_range={first} {last}")]).unwrap();
                wait_for_ports(node, &pod, first);
            }
            for family in Family::ALL {
                for (_, address) in &servers {
                    let to = SocketAddr::new(address.get(family), PORT);
                    let what = format!("{name}, {to}, ports {range:?}, port {port}");
                    let before = ask(&open(&pod.namespaces, family, port), to).expect(&what);
                    let socket = open(&pod.namespaces, family, port);
                    let forger = Forger { machine, net1: pod.net1().unwrap().get(family) };
                    let own = socket.local_addr().unwrap().port();
                    for mac in &macs {
                        forger.send(to, own, mac);
                        for _ in 0..2 {
                            let seen = ask(&socket, to).expect(&what);
                            assert_eq!(seen, before, "{what}, port {own}\n{}", recorded(node, &pod, to));
                            forger.send(to, own, mac);
                        }
                    }
                }
            }
        }
        pod.del(plane, node).unwrap();
    }
    drop(servers);
    overlay.del_sandbox(node).unwrap();
}

/// What the programs have recorded, and where the kernel would send to: why a query has left as it did.
fn recorded(node: &Namespaces, pod: &Pod, to: SocketAddr) -> String {
    let arrivals = format!("{}/arrivals", counters::PINS);
    let arrivals = node.output("bpftool", &["map", "dump", "pinned", &arrivals]).unwrap();
    let route = pod.namespaces.output("ip", &["route", "get", &to.ip().to_string()]).unwrap();
    format!("{route}{arrivals}")
}

/// Until the programs know the pod's port range, on each of its NICs: a datagram may come in by any of them.
fn wait_for_ports(node: &Namespaces, pod: &Pod, first: u16) {
    let ids = counters::nic_ids(&pod.namespaces).unwrap();
    assert!(ids.len() >= 3, "eth0, net1 and sp0: {ids:?}");
    poll::until("the pod's port range", AGENT_LIMIT, || {
        let nics = format!("{}/nics", counters::PINS);
        let dump = node.output("bpftool", &["-j", "map", "dump", "pinned", &nics])?;
        let dump: Value = serde_json::from_str(&dump)?;
        for (nic, id) in &ids {
            let entry = dump.as_array().and_then(|all| all.iter().find(|e| e["formatted"]["key"] == *id));
            let known = entry.map(|entry| &entry["formatted"]["value"]["port_low"]);
            anyhow::ensure!(known.is_some_and(|low| *low == first), "{nic}: known is {known:?}");
        }
        Ok(())
    })
    .unwrap();
}

/// The underlay's gateway gets another MAC, as when a standby takes its address over, while the pod sends to a client behind
/// it that is silent.
#[test]
fn a_stream_to_a_silent_client_outlives_a_failover_of_the_gateway() {
    let Some(lab) = lab("a_stream_to_a_silent_client") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let gateway: &Namespaces = &lab.topology.gateway;
    let before = gateway.mac_of("ul").unwrap();
    // As keepalived does: who takes the address over says so.
    gateway.sysctl(&["ipv4/conf/ul/arp_notify=1", "ipv6/conf/ul/ndisc_notify=1"]).unwrap();
    for default_route in DefaultRoute::ALL {
        let pod = Pod::add(plane, node, &spec(&format!("streamer-{}", default_route.nic()), default_route))
            .unwrap();
        for family in Family::ALL {
            let to = SocketAddr::new(pod.net1().unwrap().get(family), PORT);
            let server = open(&pod.namespaces, family, PORT);
            let client = open(&lab.topology.outside, family, 0);
            client.send_to(b"subscribe", to).unwrap();
            let (_, subscriber) = server.recv_from(&mut [0; 16]).unwrap();
            let mut number = 0u32;
            // Whether the client gets the next datagram.
            let mut next = || {
                number += 1;
                server.send_to(&number.to_be_bytes(), subscriber).unwrap();
                let mut bytes = [0; 4];
                while let Ok((_, from)) = client.recv_from(&mut bytes) {
                    assert_eq!(from, to, "by the address that was called");
                    if u32::from_be_bytes(bytes) == number {
                        return true;
                    }
                }
                false
            };
            assert!(next());
            for mac in ["02:53:00:00:aa:01", &before] {
                // Longer than the client counts as heard.
                let silent_since = Instant::now();
                poll::until("some seconds of silence", Duration::from_secs(30), || {
                    assert!(next(), "{family:?}: lost before the failover");
                    anyhow::ensure!(silent_since.elapsed() > Duration::from_secs(4), "not yet");
                    Ok(())
                })
                .unwrap();
                gateway.ip(&format!("link set ul address {mac}")).unwrap();
                // A datagram may be on its way to the former one.
                poll::until("the stream", Duration::from_mins(1), || {
                    anyhow::ensure!(next(), "{family:?}, default route on {}: cut", default_route.nic());
                    Ok(())
                })
                .unwrap();
                for _ in 0..20 {
                    assert!(next(), "{family:?}: lost after the failover");
                }
            }
        }
        pod.del(plane, node).unwrap();
    }
}

/// Connections of sockets that are bound to net1's address, translated and not, while their destination is steered no more and
/// then again: none is cut.
#[test]
fn connections_outlive_a_cidr_that_is_removed_and_added() {
    let Some(lab) = lab("connections_outlive_a_cidr") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let [service4, service6] = addresses::SERVICES;
    let outside = ["10.77.0.0/24", "fd77::/64"];
    let set_steered = |is_steered: bool| {
        let mut cidrs = vec![service4, service6];
        cidrs.extend(outside.iter().copied().filter(|_| is_steered));
        lab.set_service_cidrs(&cidrs).unwrap();
        poll::until("the new CIDRs", AGENT_LIMIT, || {
            let cidrs = counters::cidrs(node)?;
            let found = cidrs.iter().filter(|entry| outside.contains(&entry.cidr.as_str())).count();
            anyhow::ensure!((found > 0) == is_steered, "{found} of them");
            Ok(())
        })
        .unwrap();
    };
    lab.set_coordinator(RouteHints::Never).unwrap();
    for default_route in DefaultRoute::ALL {
        let name = format!("changed-{}", default_route.nic());
        let pod = Pod::add(plane, node, &spec(&name, default_route)).unwrap();
        wait_for_hints(node, &name, RouteHints::Never).unwrap();
        let (server, mut port) = (&lab.topology.outside, 7100u16);
        let mut connections: Vec<BothEnds> = Vec::new();
        for is_steered in [true, false, true, false] {
            set_steered(is_steered);
            for (number, open) in (0..).zip(&connections) {
                open.exchange(number).unwrap_or_else(|e| {
                    panic!("{name}: connection {number} when steered is {is_steered}: {e:#}")
                });
            }
            for family in Family::ALL {
                port += 1;
                let (from, to) = (pod.net1().unwrap().get(family), addresses::OUTSIDE.get(family));
                let (own, to) = (SocketAddr::new(from, 0), SocketAddr::new(to, port));
                let new = BothEnds::open((&pod.namespaces, own), (server, port), to).unwrap();
                // Translated it comes as the node, or as eth0's address.
                assert_eq!(new.seen().unwrap().ip() != from, is_steered, "{name} to {to}");
                new.exchange(9).unwrap();
                connections.push(new);
            }
        }
        // With the last translated one the look-ups end that they cost.
        drop(connections);
        pod.del(plane, node).unwrap();
    }
    lab.set_coordinator(RouteHints::Auto).unwrap();
}

/// Two sockets of the pod with the same port and destination, by eth0's address and by net1's, which is translated into that.
#[test]
fn direct_and_translated_sockets_with_one_port_get_their_own_packets() {
    let Some(lab) = lab("direct_and_translated_sockets") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let overlay = Pod::add_sandbox(node, "both", "0000-both").unwrap();
    for default_route in DefaultRoute::ALL {
        let pod =
            Pod::add(plane, node, &spec(&format!("twice-{}", default_route.nic()), default_route)).unwrap();
        for family in Family::ALL {
            let (eth0, net1) = (pod.eth0.get(family), pod.net1().unwrap().get(family));
            let to = overlay.eth0.get(family);
            for (order, (first, second)) in [(net1, eth0), (eth0, net1)].into_iter().enumerate() {
                let port = 7200 + u16::try_from(order).unwrap();
                let by = |from| {
                    let (own, to) = (SocketAddr::new(from, 6000 + port), SocketAddr::new(to, port));
                    BothEnds::open((&pod.namespaces, own), (&overlay.namespaces, port), to).unwrap()
                };
                let both = [by(first), by(second)];
                for number in 1..50 {
                    both[0].exchange(number).unwrap();
                    both[1].exchange(100 + number).unwrap();
                }
                // By UDP as well.
                let server = Server::start(&overlay.namespaces).unwrap();
                let sockets = [first, second].map(|from| {
                    let bound = pod.namespaces.run(move || {
                        let socket = UdpSocket::bind((from, 6000 + port))?;
                        socket.set_read_timeout(Some(ANSWERED))?;
                        Ok(socket)
                    });
                    bound.unwrap()
                });
                for _ in 0..20 {
                    for socket in &sockets {
                        assert_eq!(ask(socket, SocketAddr::new(to, PORT)).unwrap(), eth0);
                    }
                }
                drop(server);
            }
        }
        pod.del(plane, node).unwrap();
    }
    overlay.del_sandbox(node).unwrap();
}
