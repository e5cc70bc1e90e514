//! `spiderpool-controller daemon` and `spiderpool-controller clean`.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use spiderpool_controller::clean::{self, Clean};
use spiderpool_controller::config::Daemon;
use spiderpool_controller::replica;

#[derive(Debug, Parser)]
#[command(name = "spiderpool-controller", version, about = "Spiderpool's controller")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves the cluster until SIGTERM.
    Daemon(Box<Daemon>),
    /// Removes Spiderpool from the cluster's nodes and API, before the chart is uninstalled.
    Clean(Box<Clean>),
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match Arguments::parse().command {
            Command::Daemon(daemon) => replica::run(*daemon).await,
            Command::Clean(clean) => clean::run(*clean).await,
        }
    })
}
