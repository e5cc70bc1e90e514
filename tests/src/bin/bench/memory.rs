//! Resident memory of a process, and how much of it is its own: the rest is pages of its file, which the kernel can
//! drop and which other processes of the same file share.

use std::fs;

use anyhow::{Context as _, Result};

use crate::samples::{Pair, Report, Side};

/// In MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    resident: f64,
    anonymous: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        Ok(Self { resident: read(pid, "VmRSS")?, anonymous: read(pid, "RssAnon")? })
    }

    /// All that is resident.
    pub(crate) fn resident(self) -> f64 {
        self.resident
    }
}

/// The most that a process has had resident so far, in MiB.
pub(crate) fn peak(pid: u32) -> Result<f64> {
    read(pid, "VmHWM")
}

/// A line of its status, in MiB.
fn read(pid: u32, name: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    let kib: f64 = line.trim_start_matches(':').trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// The rows of one kind of process.
#[derive(Default)]
pub(crate) struct MemoryRows {
    resident: Pair,
    anonymous: Pair,
}

impl MemoryRows {
    pub(crate) fn add(&mut self, side: Side, memory: Memory) {
        self.resident.side(side).push(memory.resident);
        self.anonymous.side(side).push(memory.anonymous);
    }

    pub(crate) fn report(&self, report: &mut Report, name: &str) {
        report.add(name, "MiB", &self.resident);
        report.add(format!("{name}, not of its file"), "MiB", &self.anonymous);
    }
}
