//! Who is believed: nobody in the underlay changes where a flow goes that the pod has begun, and neither does a change of what is
//! steered, nor a gateway that fails over.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "trust_flows/forged.rs"]
mod forged;
#[path = "trust_flows/one_port.rs"]
mod one_port;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use spiderpool_core::ip::Family;
use spiderpool_tests::both_ends::BothEnds;
use spiderpool_tests::fixture::RouteHints;
use spiderpool_tests::lab::{Lab, lock_lab, spec, wait_for_hints};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::PORT;
use spiderpool_tests::topology::addresses;
use spiderpool_tests::{counters, poll, privilege};

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
    ask_among(socket, to, &mut 0)
}

/// The same; counts the forged answers that are read before.
fn ask_among(socket: &UdpSocket, to: SocketAddr, forged: &mut u32) -> Result<IpAddr> {
    socket.send_to(b"who?", to)?;
    let deadline = Instant::now() + ANSWERED;
    loop {
        let mut bytes = [0; 128];
        let (length, from) = socket.recv_from(&mut bytes).context("no answer")?;
        if from == to && &bytes[..length] == b"forged" {
            *forged += 1;
        } else if from == to {
            let answer = String::from_utf8_lossy(&bytes[..length]).into_owned();
            return Ok(answer.split(' ').next().context("an empty answer")?.parse()?);
        }
        anyhow::ensure!(Instant::now() < deadline, "only forged answers");
    }
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
