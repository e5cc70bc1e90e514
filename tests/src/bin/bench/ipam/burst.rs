//! Many pods on many nodes want an address at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use spiderpool_tests::control_plane::ControlPlane;

use crate::adds::{TRIES, add_all};
use crate::agents::Agents;
use crate::cpu;
use crate::memory::{Memory, MemoryRows};
use crate::pods::PodRequest;
use crate::pool::Pool;
use crate::requests::{RequestRows, Requests};
use crate::samples::{Pair, Report, Samples, Side};

/// After a burst, agents hand memory back within so much time.
pub(super) const SETTLE: Duration = Duration::from_secs(12);
/// An agent writes the endpoints after its answers, within so much time.
const ENDPOINTS: Duration = Duration::from_secs(10);
/// The pause between two looks at how many are written: each takes CPU time of the API server, too.
const LOOK: Duration = Duration::from_millis(500);

/// What one burst measured.
#[derive(Debug, Default)]
pub(super) struct Burst {
    pods: usize,
    wall: Duration,
    latencies_ms: Samples,
    failed: usize,
    /// Pods that have none in the end.
    without: usize,
    /// Addresses that more than one pod has got.
    duplicates: usize,
    /// DELs that failed afterwards.
    pub(super) failed_releases: usize,
    /// Of kube-apiserver and etcd.
    cpu: Duration,
    memory: Vec<Memory>,
    requests: Requests,
}

impl Burst {
    /// Until every pod has its address. Requests and CPU time count until their endpoints are written; memory is read later.
    pub(super) async fn run(
        plane: &ControlPlane,
        agents: &Agents,
        wants: &[PodRequest],
        pool: &Pool,
        in_flight: usize,
    ) -> Result<Self> {
        let mut burst = Self { pods: wants.len(), ..Self::default() };
        let mut addresses = BTreeSet::new();
        let before = Requests::read(plane)?;
        let (cpu_before, start) = (cpu::of_control_plane(plane)?, Instant::now());
        let outcomes = add_all(agents, wants, pool, in_flight).await?;
        burst.wall = start.elapsed();
        let got = outcomes.iter().filter(|outcome| outcome.got.is_some()).count();
        burst.requests = wait_for_endpoints(plane, &before, got).await?;
        burst.cpu = cpu::of_control_plane(plane)?.saturating_sub(cpu_before);
        for outcome in outcomes {
            burst.failed += outcome.failed;
            let Some(got) = outcome.got else {
                burst.without += 1;
                continue;
            };
            burst.latencies_ms.push(got.latency.as_secs_f64() * 1000.0);
            burst.duplicates += usize::from(!addresses.insert(got.address));
        }
        tokio::time::sleep(SETTLE).await;
        burst.memory = agents.memory()?;
        Ok(burst)
    }

    /// What a peer fails at is a figure; the same of ours is a fault.
    pub(super) fn must_be_complete(&self) -> Result<()> {
        let Self { without, duplicates, failed_releases, .. } = self;
        ensure!(*duplicates == 0, "{duplicates} addresses were given out twice");
        ensure!(*without == 0, "{without} pods have no address after {TRIES} tries");
        ensure!(*failed_releases == 0, "{failed_releases} DELs failed");
        Ok(())
    }

    /// `quantity` by the number of pods that have got an address.
    fn per_allocation(&self, quantity: f64) -> Option<f64> {
        let allocations = self.pods - self.without;
        (allocations > 0).then(|| quantity / allocations as f64)
    }
}

/// What was asked for since `before`, once so many endpoints are made; or after [`ENDPOINTS`], for an agent that changes those that are
/// there.
async fn wait_for_endpoints(plane: &ControlPlane, before: &Requests, pods: usize) -> Result<Requests> {
    let begun = Instant::now();
    loop {
        let requests = Requests::read(plane)?.since(before);
        if requests.created("spiderendpoints") >= pods as f64 || begun.elapsed() >= ENDPOINTS {
            return Ok(requests);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The rows of bursts of one kind.
#[derive(Default)]
pub(super) struct BurstRows {
    wall: Pair,
    rate: Pair,
    p50: Pair,
    p99: Pair,
    failed: Pair,
    without: Pair,
    duplicates: Pair,
    failed_releases: Pair,
    cpu: Pair,
    writes: Pair,
    memory: MemoryRows,
    requests: RequestRows,
}

impl BurstRows {
    pub(super) fn add(&mut self, side: Side, burst: &Burst) {
        let wall_s = burst.wall.as_secs_f64();
        let got = (burst.pods - burst.without) as f64;
        for (pair, value) in [
            (&mut self.wall, Some(wall_s)),
            (&mut self.rate, Some(got / wall_s)),
            (&mut self.p50, burst.latencies_ms.quantile(0.5)),
            (&mut self.p99, burst.latencies_ms.quantile(0.99)),
            (&mut self.failed, Some(burst.failed as f64)),
            (&mut self.without, Some(burst.without as f64)),
            (&mut self.duplicates, Some(burst.duplicates as f64)),
            (&mut self.failed_releases, Some(burst.failed_releases as f64)),
            (&mut self.cpu, burst.per_allocation(burst.cpu.as_secs_f64() * 1000.0)),
            (&mut self.writes, burst.per_allocation(burst.requests.address_writes())),
        ] {
            pair.side(side).extend(value);
        }
        for memory in &burst.memory {
            self.memory.add(side, *memory);
        }
        self.requests.add(side, &burst.requests);
    }

    /// Each name begins with `title`.
    pub(super) fn report(&self, title: &str, report: &mut Report) {
        let name = |what: &str| format!("{title}: {what}");
        report.add(name("all have one"), "s", &self.wall);
        report.add(name("allocations"), "1/s", &self.rate);
        report.add(name("p50"), "ms", &self.p50);
        report.add(name("p99"), "ms", &self.p99);
        report.add(name("failed"), "", &self.failed);
        report.add(name("pods without an address"), "", &self.without);
        report.add(name("addresses given out twice"), "", &self.duplicates);
        report.add(name("failed DELs"), "", &self.failed_releases);
        report.add(name("CPU of API server and etcd per allocation, with its endpoint"), "ms", &self.cpu);
        report.add(name("writes of addresses, per allocation"), "", &self.writes);
        self.memory.report(report, &name("agent memory after"));
        self.requests.report(report, title);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_without_an_address_are_no_allocations() {
        let burst = |without| Burst { pods: 4, without, ..Burst::default() };
        assert_eq!(burst(2).per_allocation(6.0), Some(3.0));
        assert_eq!(burst(4).per_allocation(6.0), None);
    }
}
