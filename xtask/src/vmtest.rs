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
use clap::{Args, ValueEnum as _};

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
    /// On this kernel, or on all: 5.10, 6.1, 6.12, all
    #[arg(long, value_parser = kernels)]
    kernel: Option<Kernels>,
    /// Only what `cargo xtask test` runs, on its kernel
    #[arg(long, conflicts_with_all = ["test", "filter"])]
    short: bool,
    /// TEST is any of tests/tests, for example `trust`: most take too long to run everywhere
    #[arg(long, requires = "test", conflicts_with = "short")]
    lab: bool,
    /// Run a command of the shell instead of tests
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["test", "filter"])]
    run: Option<String>,
    /// Let the processor execute the guest by /dev/kvm, and not qemu
    #[arg(long)]
    kvm: bool,
    /// Of a guest
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

/// A type of its own: clap takes a plain list for an option that is given several times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kernels(Vec<Kernel>);

fn kernels(text: &str) -> Result<Kernels, String> {
    if text == "all" {
        return Ok(Kernels(Kernel::ALL.to_vec()));
    }
    let names = Kernel::ALL.map(Kernel::name).join(", ");
    let kernel = Kernel::from_str(text, false).map_err(|_| format!("there are {names} and all"))?;
    Ok(Kernels(vec![kernel]))
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if let Some(why) = cannot_run() {
        bail!("cannot run tests on other kernels: {why}");
    }
    let extent = if options.short { Extent::Short } else { Extent::Whole };
    let kernels = options.kernel.as_ref().map_or(extent.kernels(), |Kernels(kernels)| kernels);
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
    Run::new(workspace, kernels, machine, script)?.start(None, show)
}

/// Builds the tests, with what they start, and answers with the script that runs them.
fn script(workspace: &Workspace, extent: Extent, options: &Options) -> Result<String> {
    let name = options.test.as_deref();
    let programs = match name {
        Some(name) if options.lab => lab(workspace, &["--package", "spiderpool-tests", "--test", name])?,
        _ => {
            setup::ensure(workspace, Component::BUILD)?;
            build_ebpf::build(workspace)?;
            let [of_kernel, of_lab] = suite::cargo_arguments(extent);
            let mut programs = TestProgram::build(workspace, &of_kernel)?;
            if name.is_none_or(suite::is_of_lab) {
                programs.extend(lab(workspace, &of_lab)?);
            }
            programs.retain(|program| name.is_none_or(|name| name == program.target));
            suite::select(programs, extent)
        }
    };
    ensure!(!programs.is_empty(), "no test program for virtual machines is named so");
    let arguments: Vec<_> = options.filter.iter().chain(&options.arguments).map(String::as_str).collect();
    Ok(script::of(workspace, &programs, extent, &arguments))
}

/// Builds tests that need all programs, with these.
fn lab(workspace: &Workspace, which: &[&str]) -> Result<Vec<TestProgram>> {
    setup::ensure(workspace, Component::RUN)?;
    build::build(workspace)?;
    TestProgram::build(workspace, which)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kernel_or_all() {
        assert_eq!(kernels("6.12"), Ok(Kernels(vec![Kernel::V6_12])));
        assert_eq!(kernels("all"), Ok(Kernels(Kernel::ALL.to_vec())));
        assert_eq!(kernels("6.18").unwrap_err(), "there are 5.10, 6.1, 6.12 and all");
    }
}
