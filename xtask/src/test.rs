//! `test`: all tests of the workspace, with everything there that they need.

mod executables;

use anyhow::Result;
use clap::Args;

use crate::{
    build, process,
    setup::{self, Component},
    workspace::Workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// What follows `--` goes to the test programs, for example --nocapture
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    test(workspace, options.filter.as_deref(), &options.arguments)
}

/// Builds what the tests start, then runs them.
pub(crate) fn test(workspace: &Workspace, filter: Option<&str>, arguments: &[String]) -> Result<()> {
    setup::ensure(workspace, Component::RUN)?;
    setup::ensure(workspace, Component::CLUSTER)?;
    build::build(workspace)?;
    let mut cargo = process::cargo(workspace);
    workspace.export(&mut cargo);
    cargo.args(["test", "--workspace", "--no-fail-fast"]);
    if filter.is_none() && arguments.is_empty() {
        executables::run(workspace, executables::build(workspace)?)?;
        cargo.arg("--doc");
    } else {
        cargo.args(filter).arg("--").args(arguments);
    }
    process::show(&mut cargo)
}
