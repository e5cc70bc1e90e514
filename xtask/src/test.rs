//! `test`: all tests of the workspace, with everything there that they need.

mod environment;
mod programs;

use std::{env, panic, thread, time::Duration};

use anyhow::{Result, ensure};
use clap::Args;

use self::environment::Environment;
use crate::{
    architecture::Architecture,
    build, process,
    setup::{self, Component},
    test_program::TestProgram,
    vmtest,
    workspace::Workspace,
};

#[derive(Args, Default)]
pub(crate) struct Options {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Also run what takes too long for every change: the optional parts of the documents, many more random inputs
    #[arg(long)]
    long: bool,
    /// After so many minutes end what runs, and fail; 180 with --long, otherwise none
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    time_limit: Option<u64>,
    /// What follows `--` goes to the test programs, for example --nocapture
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// In minutes.
const LONG_TIME_LIMIT: u64 = 180;

/// Builds what the tests start, then runs them.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, Component::RUN)?;
    setup::ensure(workspace, Component::CLUSTER)?;
    let is_whole = options.filter.is_none() && options.arguments.is_empty();
    let programs = build(workspace, is_whole)?;
    if options.long {
        let other = Architecture::other();
        setup::cross::ensure(other)?;
        setup::cross::ensure_emulator(other)?;
        build::of_images(&workspace.of(other))?;
    }
    let time_limit = options.time_limit.or(options.long.then_some(LONG_TIME_LIMIT)).map(Duration::from_mins);
    let other_kernels = match &programs {
        Some(programs) => other_kernels(workspace, programs, options.long)?,
        None => None,
    };
    let environment = Environment::new(workspace, options.long, time_limit);
    let mut cargo = process::cargo(workspace);
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    if let Some(programs) = programs {
        programs::run(&environment, programs, other_kernels.as_ref())?;
        cargo.arg("--doc");
    } else {
        cargo.args(&options.filter).arg("--").args(&options.arguments);
    }
    environment.check(process::show(&mut environment.of(cargo)))
}

/// The tests on other kernels. `None`, with the reason, where this machine cannot run them; an error with `CI=true`.
fn other_kernels(workspace: &Workspace, programs: &[TestProgram], long: bool) -> Result<Option<vmtest::Run>> {
    if let Some(why) = vmtest::cannot_run() {
        ensure!(env::var("CI").as_deref() != Ok("true"), "tests on other kernels cannot run: {why}");
        eprintln!("skipped: tests on other kernels: {why}");
        return Ok(None);
    }
    let extent = if long { vmtest::Extent::Whole } else { vmtest::Extent::Short };
    vmtest::Run::of_tests(workspace, programs, extent).map(Some)
}

/// Builds what the tests start, and the tests if all of them are to run. At the same time: each has a target directory of
/// its own, and ends with a minute of one crate for one processor.
fn build(workspace: &Workspace, is_whole: bool) -> Result<Option<Vec<TestProgram>>> {
    thread::scope(|scope| {
        let tests = is_whole.then(|| scope.spawn(|| TestProgram::build(workspace, &["--workspace"])));
        let programs = build::build(workspace);
        let tests = tests.map(|tests| tests.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        programs?;
        tests.transpose()
    })
}
