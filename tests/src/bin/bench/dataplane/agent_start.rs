//! The agent's start: its programs loaded, verified and pinned, and the most memory that it has needed by then.

use anyhow::{Context as _, Result};
use spiderpool_tests::agent::Agent;
use spiderpool_tests::counters::PINS;
use spiderpool_tests::lab::Lab;

use crate::memory::peak;
use crate::samples::{Pair, Report, Side};

/// Starts of the first node's agent, with nothing pinned; the peer is a start that finds the maps of the one before.
pub(super) fn measure(lab: &mut Lab, starts: usize, report: &mut Report) -> Result<()> {
    let (mut load, mut memory) = (Pair::default(), Pair::default());
    lab.agents.clear();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    for _ in 0..starts {
        for side in [Side::Ours, Side::Peer] {
            if side == Side::Ours {
                node.output("rm", &["-rf", PINS])?;
            }
            let agent = Agent::start(plane, node)?;
            load.side(side).push(last_load(&agent.log())?);
            memory.side(side).push(peak(agent.id())?);
            agent.kill()?;
        }
    }
    report.add("agent start: load, verify, pin; peer: maps kept", "ms", &load);
    report.add("agent start: peak memory; peer: maps kept", "MiB", &memory);
    Ok(())
}

/// Milliseconds, as the agent has logged them.
fn last_load(log: &str) -> Result<f64> {
    let (_, after) = log.rsplit_once("took_ms").context("the agent has not logged its load")?;
    let digits = |c: char| c.is_ascii_digit();
    let number: String = after.chars().skip_while(|c| !digits(*c)).take_while(|c| digits(*c)).collect();
    Ok(number.parse()?)
}
