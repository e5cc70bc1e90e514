//! `vmtest`: tests that need only a kernel, on other kernels than this machine's.
//!
//! The test programs are built here and started in a virtual machine that sees this machine's files. What it writes is
//! gone when it ends.

mod guest;
mod initramfs;
mod job;
mod script;
mod suite;

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::Args;

use self::{
    guest::{Accelerator, Guest, Outcome},
    script::Script,
};
use crate::{
    build_ebpf,
    kernel::Kernel,
    setup::{self, Component},
    test_program::TestProgram,
    workspace::Workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Run this test program alone, for example `programs`
    test: Option<String>,
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// On this kernel; without it on all
    #[arg(long)]
    kernel: Option<Kernel>,
    /// Run a command of the shell instead of tests
    #[arg(long, conflicts_with_all = ["test", "filter"])]
    run: Option<String>,
    /// Let the processor execute the guest by /dev/kvm, and not qemu
    #[arg(long)]
    kvm: bool,
    /// After so many minutes end a guest, and fail
    #[arg(long, value_name = "MINUTES", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    time_limit: u64,
    /// What follows `--` goes to the test programs, for example --nocapture
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    ensure!(
        setup::is_root(),
        "vmtest serves this machine's files to virtual machines, which only root may do. Run\n\n    \
         sudo -E env \"PATH=$PATH\" cargo xtask vmtest"
    );
    let kernels = options.kernel.map_or_else(|| Kernel::ALL.to_vec(), |kernel| vec![kernel]);
    let script = match &options.run {
        Some(command) => command.clone(),
        None => tests(workspace, options)?,
    };
    let (emulator, images) = setup::virtual_machines(workspace, &kernels)?;
    let accelerator = if options.kvm { Accelerator::Kvm } else { Accelerator::Tcg };
    let mut failed = Vec::new();
    for image in images {
        let guest = Guest {
            emulator: emulator.clone(),
            image,
            accelerator,
            cpus: suite::CPUS,
            memory: suite::MEMORY,
            time_limit: Duration::from_mins(options.time_limit),
        };
        failed.extend(run_in(&guest, &script)?);
    }
    if !failed.is_empty() {
        bail!("failed on {}; the output is above", failed.join(", on "));
    }
    Ok(())
}

/// Builds the tests, and answers with the script that runs them.
fn tests(workspace: &Workspace, options: &Options) -> Result<String> {
    setup::ensure(workspace, Component::BUILD)?;
    build_ebpf::build(workspace)?;
    let mut programs = TestProgram::build(workspace, &suite::PACKAGES)?;
    programs.retain(|program| {
        suite::contains(program) && options.test.as_ref().is_none_or(|test| *test == program.target)
    });
    ensure!(!programs.is_empty(), "no test program for virtual machines is named so");
    let mut script = Script::default();
    let arguments: Vec<_> = options.filter.iter().chain(&options.arguments).map(String::as_str).collect();
    for program in &programs {
        script.add(workspace, program, &arguments);
    }
    Ok(script.text())
}

/// Runs the script and shows its output as it comes; what failed there, for a person.
fn run_in(guest: &Guest, script: &str) -> Result<Option<String>> {
    let start = Instant::now();
    let release = &guest.image.release;
    println!("Linux {release}");
    let mut shown = 0;
    let outcome = guest.run(script, |output| {
        if let Some(fresh) = output.get(shown..).filter(|fresh| !fresh.is_empty()) {
            // Whoever has closed our output does not want to see more.
            let _closed = io::stdout().write_all(fresh);
            shown = output.len();
        }
    })?;
    let Outcome { code, stdout, stderr } = outcome;
    io::stdout().write_all(stdout.get(shown..).unwrap_or_default())?;
    io::stderr().write_all(&stderr)?;
    println!("Linux {release}: {:.1} s\n", start.elapsed().as_secs_f32());
    Ok((code != 0).then(|| format!("Linux {release} ({})", script::failed(code, &stderr))))
}
