//! One ADD after the other while many addresses are in use, and the same where there are none, in turns: two control planes, each
//! with its leader and one agent. Then the memory of what knows the addresses.

use std::time::Instant;

use anyhow::{Result, ensure};
use kube::Client;
use spiderpool_tests::tools;

use super::arguments::{GrowthPool, IpamArguments};
use super::burst::SETTLE;
use crate::adds::{add, release_all};
use crate::agents::Agents;
use crate::fill::Filled;
use crate::memory::{Memory, MemoryRows};
use crate::pods::{PodRequest, create_nodes, create_pods, spread};
use crate::pool::Pool;
use crate::requests::Requests;
use crate::samples::{Pair, Report, Samples, Side};

/// The nodes on which it is measured, ours and the peer's: their agents run beside each other, with ports of their own.
const NODES: [usize; 2] = [0, 1];

impl GrowthPool {
    /// The pool that fills up, and the one that it is compared with.
    fn pools(self) -> [Pool; 2] {
        let filling = match self {
            Self::Slash14 => Pool::ipv4("growth", 14),
            Self::Slash64 => Pool::ipv6("growth"),
        };
        let peer = match self {
            Self::Slash14 => filling.clone(),
            Self::Slash64 => Pool::ipv4("peer", 24),
        };
        [filling, peer]
    }

    /// How many addresses of the peer are in use.
    fn peer_in_use(self) -> usize {
        match self {
            Self::Slash14 => 0,
            Self::Slash64 => 10,
        }
    }

    /// What is compared.
    fn title(self, in_use: usize) -> String {
        match self {
            Self::Slash14 => format!("{in_use} of an IPv4 /14 in use; peer: none"),
            Self::Slash64 => format!("{in_use} of an IPv6 /64 in use; peer: 10 of an IPv4 /24"),
        }
    }
}

pub(super) fn measure(arguments: &IpamArguments, report: &mut Report) -> Result<()> {
    ensure!(arguments.in_use.is_sorted(), "numbers of addresses in use must be in ascending order");
    let [pool, peer_pool] = arguments.in_use_of.pools();
    tokio::runtime::Runtime::new()?.block_on(async {
        let (mut ours, mut peer) = (Filled::start().await?, Filled::start().await?);
        pool.create(&ours.plane)?;
        peer_pool.create(&peer.plane)?;
        peer.fill(&peer_pool, arguments.in_use_of.peer_in_use()).await?;
        for in_use in &arguments.in_use {
            ours.fill(&pool, *in_use).await?;
            let nodes = [
                MeasuredNode::start(&ours, NODES[0], &pool, arguments.node_pods, *in_use).await?,
                MeasuredNode::start(&peer, NODES[1], &peer_pool, arguments.node_pods, *in_use).await?,
            ];
            compare(&nodes, &arguments.in_use_of.title(*in_use), report).await?;
            for node in nodes {
                node.end().await?;
            }
        }
        Ok(())
    })
}

/// A node with an agent, and pods that want addresses.
struct MeasuredNode<'a> {
    cluster: &'a Filled,
    node: usize,
    client: Client,
    pool: &'a Pool,
    wants: Vec<PodRequest>,
    agents: Agents,
}

impl<'a> MeasuredNode<'a> {
    async fn start(
        cluster: &'a Filled,
        node: usize,
        pool: &'a Pool,
        pods: usize,
        in_use: usize,
    ) -> Result<Self> {
        let nodes = node..node + 1;
        let client = cluster.plane.client().await?;
        create_nodes(&client, nodes.clone()).await?;
        let program = tools::spiderpool("spiderpool-agent")?;
        let agents = Agents::start(&cluster.plane, &program, nodes.clone()).await?;
        let wants = create_pods(&client, &format!("measured-{in_use}"), spread(pods, nodes)).await?;
        Ok(Self { cluster, node, client, pool, wants, agents })
    }

    /// Milliseconds that the ADD of a pod takes.
    async fn add(&self, index: usize) -> Result<f64> {
        let begun = Instant::now();
        add(self.agents.socket(self.node), &self.wants[index], self.pool).await?;
        Ok(begun.elapsed().as_secs_f64() * 1000.0)
    }

    async fn end(self) -> Result<()> {
        let failed = release_all(&self.client, &self.agents, &self.wants).await?;
        ensure!(failed == 0, "{failed} DELs failed");
        drop(self.agents);
        self.cluster.wait_settled().await
    }
}

async fn compare(nodes: &[MeasuredNode<'_>; 2], title: &str, report: &mut Report) -> Result<()> {
    let [ours, peer] = nodes;
    let before = [Requests::read(&ours.cluster.plane)?, Requests::read(&peer.cluster.plane)?];
    let mut times = Pair::default();
    for index in 0..ours.wants.len() {
        let mut sides = [(Side::Ours, ours), (Side::Peer, peer)];
        // Each is the first in turn.
        if index % 2 == 1 {
            sides.reverse();
        }
        for (side, node) in sides {
            times.side(side).push(node.add(index).await?);
        }
    }
    let mut writes = Pair::default();
    for ((side, node), before) in [(Side::Ours, ours), (Side::Peer, peer)].into_iter().zip(before) {
        let since = Requests::read(&node.cluster.plane)?.since(&before);
        writes.side(side).push(since.address_writes() / node.wants.len() as f64);
    }
    let quantile = |samples: &Samples| samples.quantile(0.99).into_iter().collect();
    let p99 = Pair { ours: quantile(&times.ours), peer: quantile(&times.peer) };
    report.add(format!("one ADD, {title}"), "ms", &times);
    report.add(format!("one ADD, p99, {title}"), "ms", &p99);
    report.add(format!("writes of addresses, per allocation, {title}"), "", &writes);
    report_memory(nodes, title, report).await
}

async fn report_memory(nodes: &[MeasuredNode<'_>; 2], title: &str, report: &mut Report) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let (mut agent, mut controller, mut api_server) =
        (MemoryRows::default(), MemoryRows::default(), MemoryRows::default());
    for (side, node) in [Side::Ours, Side::Peer].into_iter().zip(nodes) {
        for memory in node.agents.memory()? {
            agent.add(side, memory);
        }
        controller.add(side, Memory::of(node.cluster.leader.controller.id())?);
        api_server.add(side, Memory::of(node.cluster.plane.api_server_id()?)?);
    }
    let pods = nodes[0].wants.len();
    agent.report(report, &format!("agent memory, {pods} pods on its node, {title}"));
    controller.report(report, &format!("controller memory, {title}"));
    api_server.report(report, &format!("API server memory, {title}"));
    Ok(())
}
