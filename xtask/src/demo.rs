//! `demo`: builds everything and starts the demo, a binary of `spiderpool-tests`.

use anyhow::Result;
use clap::Args;

use crate::{
    bench::{self, Environment},
    workspace::Workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Leave everything up at the end, and print how to look around
    #[arg(long)]
    keep: bool,
    /// Without kubelets: nodes and pods are namespaces, for quick work on the dataplane
    #[arg(long)]
    lab: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let flags = [("--keep", options.keep), ("--lab", options.lab)];
    let arguments: Vec<String> =
        flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag.to_owned()).collect();
    let environment = if options.lab { Environment::Lab } else { Environment::Cluster };
    bench::start(workspace, "demo", environment, &arguments)
}
