//! One lab, in which pods with and without the programs are compared, or with rules in place of them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;
use spiderpool_tests::lab::{Lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{LIMIT, PORT, Server};
use spiderpool_tests::service;

use crate::arguments::DataplaneArguments;
use crate::samples::{Pair, Report, Samples, Side};

/// One way through the network. The peer of a row is the same way from a pod whose programs are detached, or that has
/// rules in place of them.
struct TestPath {
    name: &'static str,
    to: IpAddr,
    bound: [Option<IpAddr>; 2],
    /// Whether it works for the peer.
    comparable: bool,
}

/// One lab, whose rows compare a pod that has the programs with one that does not.
pub(super) fn measure(arguments: &DataplaneArguments, report: &mut Report) -> Result<()> {
    let mut lab = Lab::start(2, |step: &str| eprintln!("{step}"))?;
    let pod = |lab: &Lab, name, node: usize| {
        Pod::add(&lab.topology.plane, &lab.topology.nodes[node], &spec(name, DefaultRoute::Eth0))
    };
    let (with, far) = (pod(&lab, "with", 0)?, pod(&lab, "far", 1)?);
    if arguments.policy {
        lab.set_dataplane(Dataplane::Policy, &with.name)?;
    }
    let without = pod(&lab, "without", 0)?;
    if !arguments.policy {
        detach(&without)?;
    }
    let (plane, node1) = (&lab.topology.plane, &lab.topology.nodes[0]);
    // One CPU for both ends: which CPUs the scheduler picks changes a round trip threefold.
    let mut cpu = CpuSet::new();
    cpu.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpu)?;
    let server = Server::start(&far.namespaces)?;
    let cluster_ip = service::create(plane, "bench", &[far.eth0])?;
    service::wait_for_proxy(node1, cluster_ip, &[far.eth0])?;

    for family in Family::ALL {
        let bound = [Some(with.net1()?.get(family)), Some(without.net1()?.get(family))];
        let (far_net1, service) = (far.net1()?.get(family), cluster_ip.get(family));
        let ways = [
            TestPath {
                name: "underlay pod to underlay pod",
                to: far_net1,
                bound: [None; 2],
                comparable: true,
            },
            TestPath {
                name: "overlay pod to overlay pod",
                to: far.eth0.get(family),
                bound: [None; 2],
                comparable: true,
            },
            TestPath { name: "ClusterIP", to: service, bound: [None; 2], comparable: true },
            TestPath {
                name: "ClusterIP, bound to net1 (translated)",
                to: service,
                bound,
                comparable: arguments.policy,
            },
        ];
        for way in ways {
            let mut pair = Pair::default();
            for _ in 0..arguments.rounds {
                for (side, pod) in [(Side::Ours, &with), (Side::Peer, &without)] {
                    if side == Side::Peer && !way.comparable {
                        continue;
                    }
                    let bound = way.bound[usize::from(side == Side::Peer)];
                    let trips = round_trips(&pod.namespaces, way.to, bound, arguments.trips)
                        .with_context(|| format!("{family} {}, {side:?}", way.name))?;
                    pair.side(side).push(trips.quantile(0.5).context("no round trips")?);
                }
            }
            report.add(format!("{family} {}: round trip", way.name), "us", &pair);
        }
    }
    drop(server);
    Ok(())
}

/// Removes the programs from all NICs of a pod.
fn detach(pod: &Pod) -> Result<()> {
    for nic in ["eth0", "net1", "sp0"] {
        pod.namespaces.output("tc", &["qdisc", "del", "dev", nic, "clsact"])?;
    }
    Ok(())
}

/// Microseconds of each of `count` round trips of a small datagram; the first of the flow is not counted.
fn round_trips(from: &Namespaces, to: IpAddr, bound: Option<IpAddr>, count: usize) -> Result<Samples> {
    from.run(|| {
        let any = if to.is_ipv4() { "0.0.0.0".parse()? } else { "::".parse()? };
        let socket = UdpSocket::bind(SocketAddr::new(bound.unwrap_or(any), 0))?;
        socket.connect(SocketAddr::new(to, PORT))?;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut samples = Samples::default();
        for index in 0..=count {
            let start = Instant::now();
            socket.send(&[0; 16])?;
            let size = socket.recv(&mut [0; 128]).with_context(|| format!("no answer to packet {index}"))?;
            ensure!(size > 0, "an empty answer");
            if index > 0 {
                samples.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(samples)
    })
}
