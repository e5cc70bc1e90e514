//! How quickly the agent's thread that owns the maps answers while many flows are alive: single ADDs, one DEL, many DELs at once.
//!
//! Pods are registered by the agent's socket, as the coordinator does it.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::lab::Lab;
use spiderpool_tests::live_flows;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::registration::{in_node, register, unregister};

use crate::arguments::DataplaneArguments;
use crate::memory::{Memory, MemoryRows};
use crate::samples::{Pair, Report, Samples, Side};

/// How many pods there are, and how many are deleted at once.
const PODS: usize = 100;
/// The agent's own, between two sweeps.
const SWEEP: Duration = Duration::from_secs(5);
/// How long nothing is asked for: two sweeps at least.
const IDLE: Duration = Duration::from_secs(11);
/// Between two ADDs.
const PAUSE: Duration = Duration::from_millis(2);

/// Measures with this many flows alive in each map.
pub(super) fn measure(arguments: &DataplaneArguments, flows: usize, report: &mut Report) -> Result<()> {
    let mut lab = Lab::start(1, |step: &str| eprintln!("{step}"))?;
    let node = &lab.topology.nodes[0];
    lab.agents.remove(0).stop()?;
    let log = ("SPIDERPOOL_LOG_LEVEL".to_owned(), "info".to_owned());
    let agent = Agent::start_contained(&lab.topology.plane, node, &[log])?;
    let mut ids = Vec::new();
    for number in 0..PODS {
        ids.push(in_node(node, async || register(&name(number)).await)?);
    }
    let mut rows = Rows::default();
    for round in 0..arguments.rounds {
        rows.sweeps(node, &agent, Side::Peer)?;
        rows.memory.add(Side::Peer, Memory::of(agent.id())?);
        eprintln!("round {round}: writing flows");
        live_flows::write(node, &ids, flows)?;
        rows.sweeps(node, &agent, Side::Ours)?;
        rows.removals(node)?;
        rows.memory.add(Side::Ours, Memory::of(agent.id())?);
        ids = in_node(node, async || rows.all_at_once().await)?;
    }
    rows.report(flows, report);
    Ok(())
}

#[derive(Default)]
struct Rows {
    thread: Pair,
    adds: [Samples; 2],
    removals: Samples,
    at_once: Samples,
    adds_meanwhile: Samples,
    memory: MemoryRows,
}

impl Rows {
    /// What the thread needs for sweeps alone, then ADDs over one sweep at least.
    fn sweeps(&mut self, node: &Namespaces, agent: &Agent, side: Side) -> Result<()> {
        let before = thread_time(agent.id())?;
        std::thread::sleep(IDLE);
        let needed = thread_time(agent.id())?.saturating_sub(before);
        self.thread.side(side).push(needed.as_secs_f64() * 1e3 / IDLE.as_secs_f64());
        let adds = &mut self.adds[usize::from(side == Side::Peer)];
        in_node(node, async || {
            let end = Instant::now() + SWEEP + Duration::from_millis(500);
            while Instant::now() < end {
                adds.push(timed(register("probe")).await?);
                tokio::time::sleep(PAUSE).await;
            }
            unregister("probe").await
        })
    }

    /// Pods that come and go, one after the other.
    fn removals(&mut self, node: &Namespaces) -> Result<()> {
        in_node(node, async || {
            for number in 0..20 {
                let name = format!("comes-and-goes-{number}");
                register(&name).await?;
                self.removals.push(timed(unregister(&name)).await?);
            }
            Ok(())
        })
    }

    /// Deletes all pods at once, while others are added; then they are there again.
    async fn all_at_once(&mut self) -> Result<Vec<u16>> {
        let begun = Instant::now();
        let removals = try_join_all((0..PODS).map(|number| {
            let name = name(number);
            async move { unregister(&name).await }
        }));
        let mut removals = std::pin::pin!(removals);
        let mut number = 0;
        loop {
            number += 1;
            let name = format!("meanwhile-{number}");
            let add = timed(register(&name));
            tokio::pin!(add);
            let ended = tokio::select! {
                biased;
                ended = &mut removals => Some(ended),
                took = &mut add => {
                    self.adds_meanwhile.push(took?);
                    tokio::time::sleep(PAUSE).await;
                    None
                }
            };
            if let Some(ended) = ended {
                ended?;
                self.at_once.push(begun.elapsed().as_secs_f64() * 1e3);
                self.adds_meanwhile.push(add.await?);
                break;
            }
        }
        for number in 1..=number {
            unregister(&format!("meanwhile-{number}")).await?;
        }
        let mut ids = Vec::new();
        for number in 0..PODS {
            ids.push(register(&name(number)).await?);
        }
        Ok(ids)
    }

    fn report(&self, flows: usize, report: &mut Report) {
        let name = |what: &str| format!("{flows} flows in each map: {what}");
        report.add(name("agent's thread, CPU time; peer: none alive"), "ms/s", &self.thread);
        let [ours, peer] = &self.adds;
        for (what, share) in [("median", 0.5), ("p99", 0.99), ("longest", 1.0)] {
            let of = |samples: &Samples| samples.quantile(share).into_iter().collect();
            let pair = Pair { ours: of(ours), peer: of(peer) };
            report.add(name(&format!("ADD, {what}; peer: none alive")), "ms", &pair);
        }
        let alone = |samples: &Samples| Pair { ours: samples.clone(), peer: Samples::default() };
        report.add(name("DEL of one pod"), "ms", &alone(&self.removals));
        report.add(name(&format!("{PODS} DELs at once")), "ms", &alone(&self.at_once));
        report.add(name("an ADD meanwhile"), "ms", &alone(&self.adds_meanwhile));
        self.memory.report(report, &name("agent's memory; peer: none alive"));
    }
}

fn name(number: usize) -> String {
    format!("pod-{number}")
}

async fn timed<T>(task: impl Future<Output = Result<T>>) -> Result<f64> {
    let begun = Instant::now();
    task.await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// How long the thread has run on a CPU since the agent's start.
fn thread_time(process: u32) -> Result<Duration> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        if fs::read_to_string(thread.join("comm"))?.trim() == "reconciler" {
            let times = fs::read_to_string(thread.join("schedstat"))?;
            let nanoseconds = times.split(' ').next().context("an empty schedstat")?;
            return Ok(Duration::from_nanos(nanoseconds.parse()?));
        }
    }
    anyhow::bail!("the agent has no thread of that name")
}
