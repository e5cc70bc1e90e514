//! `crds`: the chart's CRDs, generated from the types of spiderpool-api.

use anyhow::Result;
use clap::Args;

use crate::{artifacts, process, workspace::Workspace};

const FOLDER: &str = "charts/spiderpool/crds";

#[derive(Args)]
pub(crate) struct Options {
    /// Write nothing, fail if the files differ from the types
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if options.check { check(workspace) } else { generate(workspace, &[FOLDER]) }
}

/// Fails if a file differs from the types.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    generate(workspace, &["--check", FOLDER])
}

fn generate(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let mut cargo = process::cargo(workspace);
    // With the features that the whole workspace asks for, so that the tests find their dependencies built.
    cargo.args(["build", "--quiet", "--workspace", "--example", "crds"]);
    for program in artifacts::executables(&mut cargo)? {
        process::show(process::command(program).current_dir(workspace.root()).args(arguments))?;
    }
    Ok(())
}
