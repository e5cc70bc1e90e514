//! `spiderpool-agent daemon`.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use spiderpool_agent::config::Daemon;

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
}

fn main() -> anyhow::Result<()> {
    let Command::Daemon(daemon) = Arguments::parse().command;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(spiderpool_agent::daemon::run(*daemon))
}
