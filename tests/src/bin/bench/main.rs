//! `cargo xtask bench`: how fast, how much memory, and compared with what.
//!
//! A benchmark that is given a peer (another binary with the same interface) alternates the two in one run, because
//! machines are shared and noisy: only the ratio is worth quoting.
#![forbid(unsafe_code)]

mod adds;
mod agents;
mod arguments;
mod call;
mod cluster;
mod coordinator;
mod cpu;
mod dataplane;
mod fill;
mod ipam;
mod leader;
mod macvlan;
mod memory;
mod metrics;
mod pods;
mod pool;
mod requests;
mod samples;
mod scale;
mod webhook;

use anyhow::Result;
use clap::{Parser, Subcommand};

use arguments::DataplaneArguments;
use samples::Report;

#[derive(Parser)]
#[command(name = "bench", about = "Benchmarks; medians with their spread")]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Print JSON: an array of {name, unit, n, min, median, max, peer_median, ratio}.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum What {
    /// The IPAM plugin as a whole process, and allocations from one pool by many agents on a real API server.
    Ipam(ipam::IpamArguments),
    /// The coordinator plugin as a whole process, programs attached; macvlan with and without address detection.
    Cni(coordinator::CniArguments),
    /// Round trips of packets with and without the programs.
    Dataplane(DataplaneArguments),
    /// A whole cluster: installation, the start of many pods, memory.
    Cluster(cluster::ClusterArguments),
    /// What agents that only watch cost an API server, what pods that come and go cost it then, and its restart.
    ///
    /// Agents are started until there are so many, as real processes. After 0 agents and after each number of them it is measured,
    /// in rounds: nothing happens; pods come, get an address and go at a steady rate; the API server is killed and started again.
    /// Last are the slopes over the number of agents, and what the same line says of 5000.
    Scale(scale::ScaleArguments),
    /// Objects through the controller's webhooks at a steady rate: the API server's answers with and without them, memory.
    ///
    /// Printed are the medians and the 99th percentiles, a value for each round, of the API server's answers to creations of
    /// pools that its webhooks complete and check (two calls by TLS each) and, as peer, of pools that they are not asked for: the
    /// difference is the webhooks'. A request counts from when it was due. Then the memory of the controller after each round
    /// (VmRSS of /proc, and what of it is not of its file).
    Webhook(webhook::WebhookArguments),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut report = Report::default();
    match &arguments.what {
        What::Ipam(ipam) => ipam::measure(ipam, &mut report)?,
        What::Cni(cni) => coordinator::measure(cni, &mut report)?,
        What::Dataplane(dataplane) => dataplane::measure(dataplane, &mut report)?,
        What::Scale(scale) => scale::measure(scale, &mut report)?,
        What::Webhook(webhook) => webhook::measure(webhook, &mut report)?,
        What::Cluster(cluster) => cluster::measure(cluster, &mut report)?,
    }
    report.print(arguments.json)
}
