//! One lab for all tests of a binary, which take turns on it because they compare the state of the node.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, Result};
use spiderpool_core::coordinator::Dataplane;

use super::{Lab, wait_for_no_pods};
use crate::agent::Agent;

/// Waits for the lab with one node, its agent running and no pod on it. The first call makes it; `set_up` is what that
/// adds.
pub fn lock_lab(set_up: impl FnOnce(&Lab) -> Result<()>) -> Result<MutexGuard<'static, Lab>> {
    lock(1, Dataplane::Ebpf, set_up)
}

/// As [`lock_lab`], with this dataplane, which is the same in all calls.
pub fn lock_lab_with(
    dataplane: Dataplane,
    set_up: impl FnOnce(&Lab) -> Result<()>,
) -> Result<MutexGuard<'static, Lab>> {
    lock(1, dataplane, set_up)
}

/// As [`lock_lab`], with so many nodes, which are the same in all calls.
pub fn lock_lab_of(nodes: u8, set_up: impl FnOnce(&Lab) -> Result<()>) -> Result<MutexGuard<'static, Lab>> {
    lock(nodes, Dataplane::Ebpf, set_up)
}

fn lock(
    nodes: u8,
    dataplane: Dataplane,
    set_up: impl FnOnce(&Lab) -> Result<()>,
) -> Result<MutexGuard<'static, Lab>> {
    static LAB: OnceLock<Result<Mutex<Lab>>> = OnceLock::new();
    let start = || {
        let lab = Lab::start_with(nodes, dataplane, |_| ())?;
        set_up(&lab)?;
        Ok(Mutex::new(lab))
    };
    let shared = LAB.get_or_init(start).as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    let mut lab = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let node = lab.topology.nodes.first().context("a lab without node")?;
    if lab.agents.is_empty() {
        // The test that stopped it failed.
        let agent = Agent::start(&lab.topology.plane, node)?;
        lab.agents.push(agent);
    }
    // What an earlier test's pod leaves for a moment must not be taken for the state to return to.
    for node in &lab.topology.nodes {
        wait_for_no_pods(node)?;
    }
    Ok(lab)
}
