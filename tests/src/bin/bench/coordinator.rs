//! `coordinator` as a whole process: a real agent, a real pod with eth0 and macvlan net1, programs attached.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use spiderpool_tests::cni::Network;
use spiderpool_tests::lab::{Lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::tools;

use crate::call::Call;
use crate::macvlan;
use crate::memory::{Memory, MemoryRows};
use crate::samples::{Pair, Report, Samples, Side};

#[derive(Args)]
pub(crate) struct CniArguments {
    /// Another coordinator with the same configuration and socket API, measured in alternating calls.
    #[arg(long)]
    peer_coordinator: Option<PathBuf>,
    /// Pods per side, each with one ADD and one DEL.
    #[arg(long, default_value_t = 40)]
    pods: usize,
}

/// Pods whose calls are measured for memory: it does not vary.
const MEMORY_PODS: usize = 3;

#[derive(Default)]
struct Rows {
    add: Pair,
    del: Pair,
    peak: Pair,
}

pub(crate) fn measure(arguments: &CniArguments, report: &mut Report) -> Result<()> {
    let mut lab = Lab::start(1, |step: &str| eprintln!("{step}"))?;
    let ours = tools::spiderpool("coordinator")?;
    let mut rows = Rows::default();
    for index in 0..arguments.pods + MEMORY_PODS {
        for (side, plugin) in [(Side::Ours, Some(&ours)), (Side::Peer, arguments.peer_coordinator.as_ref())] {
            let Some(plugin) = plugin else { continue };
            let name = format!("bench-{index}-{side:?}").to_lowercase();
            let what = if index < MEMORY_PODS { What::Memory } else { What::Time };
            one_pod(&lab, &name, plugin, what, rows.sides(side)).with_context(|| name)?;
        }
    }
    report.add("coordinator ADD, whole process", "ms", &rows.add);
    report.add("coordinator DEL, whole process", "ms", &rows.del);
    report.add("coordinator ADD, peak memory", "MiB", &rows.peak);
    let mut memory = MemoryRows::default();
    for agent in &lab.agents {
        memory.add(Side::Ours, Memory::of(agent.id())?);
    }
    memory.report(report, &format!("agent memory after {} pods", arguments.pods + MEMORY_PODS));
    macvlan::measure(&mut lab, report)
}

impl Rows {
    fn sides(&mut self, side: Side) -> [&mut Samples; 3] {
        [self.add.side(side), self.del.side(side), self.peak.side(side)]
    }
}

/// What is measured on a pod: tracing for memory slows the calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Time,
    Memory,
}

/// Makes a pod with the plugins before the coordinator, then measures the coordinator alone.
fn one_pod(
    lab: &Lab,
    name: &str,
    plugin: &Path,
    what: What,
    [add, del, peak]: [&mut Samples; 3],
) -> Result<()> {
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let PodSpec { networks, .. } = spec(name, DefaultRoute::Eth0);
    let network = networks.into_iter().next().context("the pod has no second network")?;
    let (coordinator, before) = network.plugins.split_last().context("an empty network")?;
    let (coordinator, before) =
        (coordinator.clone(), Network { plugins: before.to_vec(), ..network.clone() });
    let mut pod = Pod::add(plane, node, &PodSpec { name: name.into(), ..PodSpec::default() })?;
    pod.attach(node, "net1", &before)?;
    let (_, attachment, result) = pod.attachments.last().context("no attachment")?;
    let config = network.config(&coordinator, result)?;
    let environment = [
        ("CNI_CONTAINERID", attachment.container.as_str()),
        ("CNI_IFNAME", "net1"),
        ("CNI_NETNS", attachment.netns.to_str().context("netns path")?),
        ("CNI_PATH", "/nonexistent"),
        ("CNI_ARGS", attachment.arguments.as_str()),
    ];
    let call = |command| Call { plugin, command, environment: &environment, config: &config };
    match what {
        What::Time => {
            add.push(node.run(|| call("ADD").wall_ms())?);
            del.push(node.run(|| call("DEL").wall_ms())?);
        }
        What::Memory => {
            peak.push(node.run(|| call("ADD").peak_mib())?);
            node.run(|| call("DEL").wall_ms())?;
        }
    }
    pod.del(plane, node)
}
