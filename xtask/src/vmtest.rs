//! `vmtest`: tests that need only a kernel, on other kernels than this machine's.
//!
//! The test programs are built here and started in a virtual machine that sees this machine's files. What it writes is
//! gone when it ends.

mod guest;
mod initramfs;
mod job;
mod run;
mod script;
mod suite;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use clap::Args;

use self::{guest::Accelerator, run::Machine};
pub(crate) use self::{
    run::{Run, cannot_run},
    suite::Extent,
};
use crate::{
    build, build_ebpf,
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
    /// Only what `cargo xtask test` runs, on its kernel
    #[arg(long, conflicts_with_all = ["test", "filter"])]
    short: bool,
    /// Run a command of the shell instead of tests
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["test", "filter"])]
    run: Option<String>,
    /// Let the processor execute the guest by /dev/kvm, and not qemu
    #[arg(long)]
    kvm: bool,
    #[arg(long, default_value_t = run::CPUS, value_parser = clap::value_parser!(u8).range(1..=64))]
    cpus: u8,
    /// Of a guest, in MiB
    #[arg(long, default_value_t = run::MEMORY, value_parser = clap::value_parser!(u32).range(256..=65_536))]
    memory: u32,
    /// After so many minutes end a guest, and fail
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    time_limit: u64,
    /// What follows `--` goes to the test programs, for example --nocapture
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if let Some(why) = cannot_run() {
        bail!("cannot run tests on other kernels: {why}");
    }
    let extent = if options.short { Extent::Short } else { Extent::Whole };
    let kernels = options.kernel.map_or_else(|| extent.kernels().to_vec(), |kernel| vec![kernel]);
    let script = match &options.run {
        Some(command) => command.clone(),
        None => script(workspace, extent, options)?,
    };
    let machine = Machine {
        accelerator: if options.kvm { Accelerator::Kvm } else { Accelerator::Tcg },
        cpus: options.cpus,
        memory: options.memory,
        time_limit: Duration::from_mins(options.time_limit),
    };
    // Whoever has closed our output does not want to see more.
    let show = |output: &[u8]| drop(io::stdout().write_all(output));
    Run::new(workspace, &kernels, machine, script)?.start(None, show)
}

/// Builds the tests, with what they start, and answers with the script that runs them.
fn script(workspace: &Workspace, extent: Extent, options: &Options) -> Result<String> {
    let is_wanted = |target: &str| options.test.as_ref().is_none_or(|test| test == target);
    let with_lab = extent == Extent::Whole && options.test.as_deref().is_none_or(suite::is_of_lab);
    let [of_kernel, of_lab] = suite::cargo_arguments();
    let mut programs = TestProgram::build(workspace, &of_kernel)?;
    if with_lab {
        setup::ensure(workspace, Component::RUN)?;
        build::build(workspace)?;
        programs.extend(TestProgram::build(workspace, &of_lab)?);
    } else {
        setup::ensure(workspace, Component::BUILD)?;
        build_ebpf::build(workspace)?;
    }
    programs.retain(|program| is_wanted(&program.target));
    let programs = suite::select(programs, extent);
    ensure!(!programs.is_empty(), "no test program for virtual machines is named so");
    let arguments: Vec<_> = options.filter.iter().chain(&options.arguments).map(String::as_str).collect();
    Ok(script::of(workspace, &programs, extent, &arguments))
}
