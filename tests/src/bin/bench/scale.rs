//! `bench scale`: what grows with the number of nodes. Agents are real processes, so that watches, lists and probes are theirs; their
//! dataplane is not loaded. The pods on their nodes do not run.

mod churn;
mod line;
mod rows;
mod watches;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use spiderpool_tests::{poll, tools};

use crate::agents::Agents;
use crate::cpu;
use crate::fill::Filled;
use crate::memory::Memory;
use crate::pods::create_nodes;
use crate::pool::Pool;
use crate::samples::Report;
use churn::Churn;
use rows::{Quantity, Rows, Start};
use watches::Watches;

/// Agents are at most so many: the nodes beyond have pods that stay.
const MOST_AGENTS: usize = 1000;
/// The pause between two looks at what a starting API server has open.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct ScaleArguments {
    /// How many agents there are, in ascending order and separated by commas. No agents are always measured first.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 250, 500])]
    agents: Vec<usize>,
    /// Pods a second that get an address.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds for which each is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Rounds with each number of agents.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Addresses that are in use all the time, by pods on other nodes.
    #[arg(long, default_value_t = 0)]
    in_use: usize,
}

pub(crate) fn measure(arguments: &ScaleArguments, report: &mut Report) -> Result<()> {
    let most = arguments.agents.iter().max();
    ensure!(most.is_none_or(|most| *most <= MOST_AGENTS), "at most {MOST_AGENTS} agents");
    ensure!(arguments.agents.is_sorted(), "numbers of agents must be in ascending order");
    let rows = tokio::runtime::Runtime::new()?.block_on(measure_all(arguments))?;
    rows.report(&format!("{} pods/s", arguments.rate), report);
    Ok(())
}

async fn measure_all(arguments: &ScaleArguments) -> Result<Rows> {
    let pool = Pool::ipv4("scale", 14);
    let mut filled = Filled::start().await?;
    pool.create(&filled.plane)?;
    filled.fill(&pool, arguments.in_use).await?;
    let (without_agents, _) = Watches::read_settled(&filled.plane).await?;
    let agents = Agents::start(&filled.plane, &tools::spiderpool("spiderpool-agent")?, 0..0).await?;
    let mut scale =
        Scale { arguments, pool, filled, agents, running: 0, without_agents, rows: Rows::default() };
    let mut pods_alone = Events::default();
    for agents in [0].into_iter().chain(arguments.agents.iter().copied()) {
        eprintln!("{agents} agents");
        scale.start_agents(agents).await?;
        for round in 0..arguments.rounds {
            scale.measure_idle().await?;
            let events = scale.measure_churn(round).await?;
            if agents == 0 {
                pods_alone = events;
            } else {
                scale.add_events(&events, &pods_alone);
            }
        }
        // Last: an API server that has just started still works for itself.
        for _ in 0..arguments.rounds {
            scale.measure_restart().await?;
        }
    }
    Ok(scale.rows)
}

/// Events a second that were sent to all watches, by resource: those that agents watch, or all without agents.
type Events = BTreeMap<String, f64>;

struct Scale<'a> {
    arguments: &'a ScaleArguments,
    pool: Pool,
    // Agents end before their API server does.
    agents: Agents,
    filled: Filled,
    running: usize,
    /// When no agent was running.
    without_agents: Watches,
    rows: Rows,
}

impl Scale<'_> {
    /// Until so many are running and have opened all their watches.
    async fn start_agents(&mut self, agents: usize) -> Result<()> {
        let more = agents.checked_sub(self.running).filter(|more| *more > 0);
        let Some(more) = more else { return Ok(()) };
        let client = self.filled.plane.client().await?;
        create_nodes(&client, self.running..agents).await?;
        let before = cpu::of_api_server(&self.filled.plane)?;
        self.agents.start_more(self.running..agents).await?;
        let (open, cpu) = Watches::read_settled(&self.filled.plane).await?;
        let watches = (open.all_open() - self.without_agents.all_open()) / agents as f64;
        let cpu_ms = cpu.saturating_sub(before).as_secs_f64() * 1000.0 / more as f64;
        self.rows.add_start(agents, Start { cpu_ms, watches });
        self.running = agents;
        Ok(())
    }

    async fn measure_idle(&mut self) -> Result<()> {
        let (before, begun) = (cpu::of_api_server(&self.filled.plane)?, Instant::now());
        tokio::time::sleep(Duration::from_secs(self.arguments.seconds.into())).await;
        let cpu = share(cpu::of_api_server(&self.filled.plane)?.saturating_sub(before), begun);
        self.rows.add(Quantity::IdleCpu, self.running, [cpu]);
        Ok(())
    }

    /// While pods come and go.
    async fn measure_churn(&mut self, round: usize) -> Result<Events> {
        let (plane, client) = (&self.filled.plane, self.filled.plane.client().await?);
        create_nodes(&client, 0..1).await?;
        let churn = Churn {
            client: &client,
            pool: &self.pool,
            agents: (self.running > 0).then_some(&self.agents),
            nodes: self.running.max(1),
            rate: self.arguments.rate,
        };
        let pods = self.arguments.rate * self.arguments.seconds;
        let prefix = format!("churn-{}-{round}", self.running);
        let sent_before = Watches::read(plane)?;
        let (cpu_before, begun) = (cpu::of_api_server(plane)?, Instant::now());
        let at_the_end = || {
            let cpu = share(cpu::of_api_server(plane)?.saturating_sub(cpu_before), begun);
            Ok((cpu, begun.elapsed(), Watches::read(plane)?))
        };
        let (outcomes, (cpu, elapsed, sent)) = churn.run(pods, &prefix, at_the_end).await?;
        let memory = Memory::of(plane.api_server_id()?)?;
        self.filled.wait_settled().await?;
        let agents = self.running;
        self.rows.add(Quantity::LoadedCpu, agents, [cpu]);
        self.rows.add(Quantity::Memory, agents, [memory.resident()]);
        if agents > 0 {
            self.rows.add(Quantity::AddMedian, agents, outcomes.latencies_ms.quantile(0.5));
            self.rows.add(Quantity::AddTail, agents, outcomes.latencies_ms.quantile(0.99));
            self.rows.add(Quantity::FailedAdds, agents, [outcomes.failed_adds as f64]);
            self.rows.add(Quantity::FailedDels, agents, [outcomes.failed_dels as f64]);
        }
        let resources = sent.of_agents(&self.without_agents, agents).into_iter();
        let rate =
            |resource: &str| (sent.events(resource) - sent_before.events(resource)) / elapsed.as_secs_f64();
        Ok(resources.map(|resource| (resource.to_owned(), rate(resource))).collect())
    }

    /// What each agent was sent: others are sent as much as `without_agents`.
    fn add_events(&mut self, sent: &Events, without_agents: &Events) {
        for (resource, rate) in sent {
            let to_others = without_agents.get(resource).copied().unwrap_or_default();
            let to_each = (rate - to_others).max(0.0) / self.running as f64;
            self.rows.add_events(self.running, resource, to_each);
        }
    }

    /// Until as many watches are open as before. CPU time counts from the new process's start.
    async fn measure_restart(&mut self) -> Result<()> {
        let open = Watches::read_settled(&self.filled.plane).await?.0.all_open();
        let begun = Instant::now();
        self.filled.plane.kill_api_server()?;
        self.filled.plane.start_api_server().context("kube-apiserver is started again")?;
        poll::until_async("as many watches as before", watches::LIMIT, async || {
            // Each look takes its CPU time, too.
            tokio::time::sleep(LOOK).await;
            let now = Watches::read(&self.filled.plane)?.all_open();
            ensure!(now >= open, "{now} of {open}");
            Ok(())
        })
        .await?;
        let (elapsed, cpu) = (begun.elapsed(), cpu::of_api_server(&self.filled.plane)?);
        self.rows.add(Quantity::RestartTime, self.running, [elapsed.as_secs_f64()]);
        self.rows.add(Quantity::RestartCpu, self.running, [cpu.as_secs_f64()]);
        Ok(())
    }
}

/// Milliseconds of CPU time for each second since `begun`.
fn share(cpu: Duration, begun: Instant) -> f64 {
    cpu.as_secs_f64() * 1000.0 / begun.elapsed().as_secs_f64()
}
