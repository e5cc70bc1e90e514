//! `demo`: builds everything and starts the demo, a binary of `spiderpool-tests`.

use anyhow::Result;
use clap::Args;

use crate::{bench, workspace::Workspace};

#[derive(Args)]
pub(crate) struct Options {
    /// Leave nodes and pods up at the end, and print how to look around
    #[arg(long)]
    keep: bool,
    /// What follows `--` goes to the demo program
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let keep = options.keep.then(|| "--keep".to_owned());
    let arguments: Vec<String> = keep.into_iter().chain(options.arguments.iter().cloned()).collect();
    bench::start(workspace, "demo", &arguments)
}
