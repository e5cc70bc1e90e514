//! `spiderpool-agent`: the daemon, and what is done to a node before and after it.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use spiderpool_agent::config::Daemon;
use spiderpool_agent::node::clean::{self, CleanNode};
use spiderpool_agent::node::install::{self, InstallPlugins};
use spiderpool_agent::node::prepare::{self, PrepareNode};
use spiderpool_agent::node::wait;

#[derive(Debug, Parser)]
#[command(name = "spiderpool-agent", version, about = "Spiderpool's agent: one per node")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the node until SIGTERM.
    Daemon(Box<Daemon>),
    /// Mounts the BPF file system and writes kernel parameters, which needs privileges.
    PrepareNode(PrepareNode),
    /// Puts the CNI plugins into the node's folder.
    InstallPlugins(InstallPlugins),
    /// At uninstall: removes what agents have left on the node and no pod needs.
    CleanNode(Box<CleanNode>),
    /// Does nothing until SIGTERM.
    Wait,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Daemon(daemon) => spiderpool_agent::daemon::run(*daemon).await,
        Command::PrepareNode(options) => prepare::run(&options),
        Command::InstallPlugins(options) => install::run(&options),
        Command::CleanNode(options) => clean::run(*options).await,
        Command::Wait => wait::run().await,
    }
}
