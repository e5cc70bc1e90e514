//! One lab, in which pods with and without the programs are compared, or with rules in place of them.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::lab::{Lab, pool, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{PORT, Server};
use spiderpool_tests::service;

use super::agent_start;
use super::connection::{connections, stream};
use super::round_trip::round_trips;
use super::run_time;
use crate::arguments::DataplaneArguments;
use crate::memory::{Memory, MemoryRows};
use crate::samples::{Pair, Report, Side};

/// From here on are the ports from which the node has called each of two pods, so that flows are alive while connections are measured.
const FIRST_LIVE_PORT: u16 = 20_000;
/// At most so many.
const MOST_LIVE: usize = 26_000;
/// A pod's share of `link_flows`, where connections that are over stay for some time, without what others need there.
const ROOM: usize = 32_768 - 4_000;

/// How many flows live, and leave room for the connections.
fn live_flows(arguments: &DataplaneArguments) -> usize {
    // Each round has one to begin with.
    let connections = arguments.rounds.saturating_mul(arguments.connections.saturating_add(1));
    ROOM.saturating_sub(connections).min(MOST_LIVE)
}

/// One way through the network, for the pod with programs and for its peer: the same way from a pod whose programs are detached, or
/// that has rules in place of them.
struct TestPath {
    name: &'static str,
    /// Ours, and the peer's if it works for it.
    ends: [Option<Ends>; 2],
}

#[derive(Clone)]
struct Ends {
    from: Namespaces,
    bound: Option<IpAddr>,
    to: IpAddr,
}

/// Who takes part.
struct Pods {
    lab: Lab,
    with: Pod,
    without: Pod,
    far: Pod,
    cluster_ip: Dual,
}

/// One lab, whose rows compare a pod that has the programs with one that does not.
pub(super) fn measure(arguments: &DataplaneArguments, report: &mut Report) -> Result<()> {
    let mut pods = Pods::start(arguments)?;
    // One CPU for both ends: which CPUs the scheduler picks changes a round trip threefold.
    let mut cpu = CpuSet::new();
    cpu.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpu)?;
    // On its addresses: rules send what a server on the wildcard address answers elsewhere.
    let serve = |pod: &Pod| {
        let net1 = pod.net1()?;
        Server::start_at(&pod.namespaces, &Family::ALL.map(|family| net1.get(family)))
    };
    let _servers = (Server::start(&pods.far.namespaces)?, serve(&pods.with)?, serve(&pods.without)?);
    let mut before = Vec::new();
    for family in Family::ALL {
        for way in pods.ways(family, arguments.policy) {
            let pair = measure_way(&way, arguments)?;
            report.add(format!("{family} {}: round trip", way.name), "us", &pair);
            before.push((format!("{family} {}", way.name), pair));
        }
    }
    if !arguments.policy {
        let (node, to) = (&pods.lab.topology.nodes[0], pods.far.net1()?);
        for family in Family::ALL {
            let (pod, idle) = (&pods.with.namespaces, &pods.without.namespaces);
            run_time::measure(node, pod, idle, to.get(family), (arguments.rounds, arguments.trips), report)?;
        }
        detach(&pods.without);
    }
    pods.measure_streams(arguments, report)?;
    pods.measure_connections(arguments, report)?;
    if arguments.pods > 0 {
        pods.measure_many(arguments, before, report)?;
    }
    agent_start::measure(&mut pods.lab, arguments.rounds, report)
}

impl Pods {
    fn start(arguments: &DataplaneArguments) -> Result<Self> {
        let mut lab = Lab::start(2, |step: &str| eprintln!("{step}"))?;
        let pod = |lab: &Lab, name, node: usize| {
            Pod::add(&lab.topology.plane, &lab.topology.nodes[node], &spec(name, DefaultRoute::Eth0))
        };
        let (with, far) = (pod(&lab, "with", 0)?, pod(&lab, "far", 1)?);
        if arguments.policy {
            lab.set_dataplane(Dataplane::Policy, &with.name)?;
        }
        let without = pod(&lab, "without", 0)?;
        let (plane, node1) = (&lab.topology.plane, &lab.topology.nodes[0]);
        let cluster_ip = service::create(plane, "bench", &[far.eth0])?;
        service::wait_for_proxy(node1, cluster_ip, &[far.eth0])?;
        if arguments.policy {
            lab.set_dataplane(Dataplane::Ebpf, &with.name)?;
        } else {
            // It would attach them again.
            lab.agents.remove(0).kill()?;
            detach(&without);
        }
        Ok(Self { lab, with, without, far, cluster_ip })
    }

    fn ways(&self, family: Family, policy: bool) -> Vec<TestPath> {
        let (with, without) = (&self.with.namespaces, &self.without.namespaces);
        let both =
            |to: IpAddr| [with, without].map(|from| Some(Ends { from: from.clone(), bound: None, to }));
        let service = self.cluster_ip.get(family);
        let net1 = |pod: &Pod| pod.net1().map(|net1| net1.get(family)).ok();
        let mut ways = vec![
            TestPath { name: "overlay pod to overlay pod", ends: both(self.far.eth0.get(family)) },
            TestPath { name: "ClusterIP", ends: both(service) },
        ];
        if let Some(to) = net1(&self.far) {
            ways.insert(0, TestPath { name: "underlay pod to underlay pod", ends: both(to) });
        }
        let node = &self.lab.topology.nodes[0];
        let mut bound = both(service);
        let mut link = [&self.with, &self.without]
            .map(|pod| net1(pod).map(|to| Ends { from: (**node).clone(), bound: None, to }));
        for (ends, pod) in bound.iter_mut().zip([&self.with, &self.without]) {
            if let Some(ends) = ends {
                ends.bound = net1(pod);
            }
        }
        if !policy {
            // Without programs nothing translates, and nothing comes back by the node link.
            (bound[1], link[1]) = (None, None);
        }
        ways.push(TestPath { name: "ClusterIP, bound to net1 (translated)", ends: bound });
        ways.push(TestPath { name: "node to net1", ends: link });
        ways
    }

    fn measure_streams(&self, arguments: &DataplaneArguments, report: &mut Report) -> Result<()> {
        let family = Family::V4;
        let paths = [("underlay", self.far.net1()?.get(family)), ("overlay", self.far.eth0.get(family))];
        for (name, to) in paths {
            let mut pair = Pair::default();
            for _ in 0..arguments.rounds {
                for (side, pod) in [(Side::Ours, &self.with), (Side::Peer, &self.without)] {
                    let time = stream(&pod.namespaces, &self.far.namespaces, to, arguments.mebibytes);
                    pair.side(side).push(time.with_context(|| format!("stream, {name}, {side:?}"))?);
                }
            }
            report.add(format!("{family} {name}: stream of {} MiB", arguments.mebibytes), "ms", &pair);
        }
        Ok(())
    }

    /// With as many recorded flows alive as two pods may have beside the connections.
    fn measure_connections(&self, arguments: &DataplaneArguments, report: &mut Report) -> Result<()> {
        let (node, family) = (&self.lab.topology.nodes[0], Family::V4);
        let live = live_flows(arguments);
        for pod in [&self.with, &self.without] {
            let to = pod.net1()?.get(family);
            node.run(|| {
                for port in (FIRST_LIVE_PORT..).take(live) {
                    // Whether it is answered does not matter, nor that a port is taken.
                    if let Ok(socket) = UdpSocket::bind(("0.0.0.0", port)) {
                        socket.send_to(b"x", (to, PORT))?;
                    }
                }
                Ok(())
            })?;
        }
        for way in self.ways(family, arguments.policy) {
            let [Some(ours), Some(peer)] = way.ends else { continue };
            if ours.bound.is_some() {
                continue;
            }
            let mut pair = Pair::default();
            for _ in 0..arguments.rounds {
                for (side, ends) in [(Side::Ours, &ours), (Side::Peer, &peer)] {
                    let times = connections(&ends.from, ends.to, arguments.connections)
                        .with_context(|| format!("{}, {side:?}", way.name))?;
                    pair.side(side).push(times.quantile(0.5).context("no connections")?);
                }
            }
            report.add(format!("{family} {}: short connection", way.name), "us", &pair);
        }
        Ok(())
    }

    /// The same round trips with many pods on the node; their peers are those of before.
    fn measure_many(
        &self,
        arguments: &DataplaneArguments,
        before: Vec<(String, Pair)>,
        report: &mut Report,
    ) -> Result<()> {
        let (plane, node) = (&self.lab.topology.plane, &self.lab.topology.nodes[0]);
        for (name, ips) in
            [("underlay-v4", "10.66.10.1-10.66.13.250"), ("underlay-v6", "fd66::a:1-fd66::a:3e8")]
        {
            plane.apply(&pool(name, &[ips]).to_string())?;
        }
        // Where it was killed so that it attaches nothing, one is needed for the others.
        let started = if self.lab.agents.len() < self.lab.topology.nodes.len() {
            Some(Agent::start(plane, node)?)
        } else {
            None
        };
        let agent = started.as_ref().or(self.lab.agents.first()).context("no agent")?;
        let mut memory = MemoryRows::default();
        memory.add(Side::Peer, Memory::of(agent.id())?);
        let _others = (2..arguments.pods)
            .map(|number| Pod::add(plane, node, &spec(&format!("many-{number}"), DefaultRoute::Eth0)))
            .collect::<Result<Vec<_>>>()?;
        memory.add(Side::Ours, Memory::of(agent.id())?);
        memory.report(report, &format!("agent with {} pods, before with 2", arguments.pods));
        let ways = Family::ALL.into_iter().flat_map(|family| self.ways(family, arguments.policy));
        for (way, (name, before)) in ways.zip(before) {
            let mut pair = measure_way(&way, arguments)?;
            pair.peer = before.ours;
            report.add(format!("{name}: round trip, {} pods, before 2", arguments.pods), "us", &pair);
        }
        Ok(())
    }
}

fn measure_way(way: &TestPath, arguments: &DataplaneArguments) -> Result<Pair> {
    let mut pair = Pair::default();
    for _ in 0..arguments.rounds {
        for (side, ends) in [Side::Ours, Side::Peer].into_iter().zip(&way.ends) {
            let Some(ends) = ends else { continue };
            let trips = round_trips(&ends.from, ends.to, ends.bound, arguments.trips)
                .with_context(|| format!("{}, {side:?}", way.name))?;
            pair.side(side).push(trips.quantile(0.5).context("no round trips")?);
        }
    }
    Ok(pair)
}

/// Removes the programs from all NICs of a pod.
fn detach(pod: &Pod) {
    for nic in ["eth0", "net1", "sp0"] {
        // It may have none.
        drop(pod.namespaces.output("tc", &["qdisc", "del", "dev", nic, "clsact"]));
    }
}
