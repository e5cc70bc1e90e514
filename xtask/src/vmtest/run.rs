//! One script on several kernels, one after the other.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    guest::{Accelerator, Guest, Outcome},
    script,
    suite::{self, Extent},
};
use crate::{
    architecture::Architecture, kernel::Kernel, setup, test_program::TestProgram, workspace::Workspace,
};

/// A second one makes nothing faster where other tests run beside.
pub(super) const CPUS: u8 = 1;
/// MiB. Of what a guest does not use, this machine gives nothing. An API server takes most of it.
pub(super) const MEMORY: u32 = 2048;
/// On a machine that does nothing else, a guest takes a few minutes.
const TIME_LIMIT: Duration = Duration::from_hours(1);

/// What each guest is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    pub(super) accelerator: Accelerator,
    pub(super) cpus: u8,
    pub(super) memory: u32,
    pub(super) time_limit: Duration,
}

/// A script with the guests that run it.
pub(crate) struct Run {
    guests: Vec<Guest>,
    script: String,
}

/// Why this machine has no guests; `None` if it can have them.
pub(crate) fn cannot_run() -> Option<&'static str> {
    if !setup::is_root() {
        Some("only root may serve this machine's files to virtual machines")
    } else if Architecture::HOST != Architecture::Amd64 {
        Some("this needs an amd64 machine")
    } else if !is_debian_12() {
        Some("kernels and qemu are packages of Debian 12, which this machine is not")
    } else {
        None
    }
}

fn is_debian_12() -> bool {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let has = |wanted: &str| text.lines().any(|line| line.replace('"', "") == wanted);
    has("ID=debian") && has("VERSION_ID=12")
}

impl Run {
    /// Finds or installs what the guests are made of.
    pub(super) fn new(
        workspace: &Workspace,
        kernels: &[Kernel],
        machine: Machine,
        script: String,
    ) -> Result<Self> {
        let (emulator, images) = setup::virtual_machines(workspace, kernels)?;
        let Machine { accelerator, cpus, memory, time_limit } = machine;
        let guest =
            |image| Guest { emulator: emulator.clone(), image, accelerator, cpus, memory, time_limit };
        Ok(Self { guests: images.into_iter().map(guest).collect(), script })
    }

    /// Those of `programs` that run on other kernels, in this extent.
    pub(crate) fn of_tests(workspace: &Workspace, programs: &[TestProgram], extent: Extent) -> Result<Self> {
        let machine =
            Machine { accelerator: Accelerator::Tcg, cpus: CPUS, memory: MEMORY, time_limit: TIME_LIMIT };
        let programs = suite::select(programs.to_vec(), extent);
        Self::new(workspace, extent.kernels(), machine, script::of(workspace, &programs, extent, &[]))
    }

    /// Runs the script on each kernel, until `deadline`. `show` is given the output as it comes. An error says what has failed
    /// where.
    pub(crate) fn start(&self, deadline: Option<Instant>, mut show: impl FnMut(&[u8])) -> Result<()> {
        let mut failed = Vec::new();
        for guest in &self.guests {
            let left = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            let guest = &Guest { time_limit: guest.time_limit.min(left), ..guest.clone() };
            if let Err(error) = start(guest, &self.script, &mut show) {
                failed.push(format!("Linux {}: {error:#}", guest.image.release));
            }
        }
        if !failed.is_empty() {
            bail!("failed on {}", failed.join("\non "));
        }
        Ok(())
    }
}

fn start(guest: &Guest, script: &str, show: &mut impl FnMut(&[u8])) -> Result<()> {
    let begun = Instant::now();
    let release = &guest.image.release;
    show(format!("     Linux {release}\n").as_bytes());
    let mut shown = 0;
    let result = guest.run(script, |output| {
        show(output.get(shown..).unwrap_or_default());
        shown = output.len().max(shown);
    });
    if let Ok(Outcome { stdout, stderr, .. }) = &result {
        show(stdout.get(shown..).unwrap_or_default());
        show(stderr);
    }
    show(format!("Linux {release}: {:.1} s\n\n", begun.elapsed().as_secs_f32()).as_bytes());
    match result? {
        Outcome { code: 0, .. } => Ok(()),
        Outcome { code, stderr, .. } => bail!("{}", script::failed(code, &stderr)),
    }
}
