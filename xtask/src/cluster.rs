//! `cluster`: starts the program for clusters with kubelets, a binary of `spiderpool-tests`.

use anyhow::Result;
use clap::Args;

use crate::{
    bench, build,
    setup::{self, Component},
    workspace::Workspace,
};

#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// up, down, status, shell MACHINE, power-off NODE, power-on NODE, add-node, load-image FILE or kubeconfig, and
    /// their options; --help shows them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, Component::RUN)?;
    setup::ensure(workspace, Component::CLUSTER)?;
    build::testbox(workspace)?;
    bench::become_program(workspace, "cluster", &options.arguments)
}
