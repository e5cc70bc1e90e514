//! The program behind `cargo xtask cluster`: starts, shows and removes clusters with real kubelets.
#![forbid(unsafe_code)]

mod show;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use spiderpool_tests::cluster::{Cluster, DefaultCni, Lifetime, Options, ProxyMode};
use spiderpool_tests::{privilege, tools};

/// Clusters of kubelets on this machine
#[derive(Parser)]
#[command(name = "cluster", bin_name = "cargo xtask cluster", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster and wait until its nodes are ready
    Up(Up),
    /// End a cluster and remove all that there is of it
    Down(Name),
    /// Show machines, services and nodes; of all clusters if none is named
    Status(OptionalName),
    /// Open a shell on a machine, or run what follows `--` there
    Shell(Shell),
    /// Cut a node's power
    PowerOff(OneNode),
    /// Switch a node on again, with the disk that it had, and wait until it is ready
    PowerOn(OneNode),
    /// Start one more node and wait until it is ready
    AddNode(Name),
    /// Import an image archive on every node
    LoadImage(LoadImage),
    /// Print where the kubeconfig file is and how to reach the API server
    Kubeconfig(Name),
}

#[derive(Args)]
struct Name {
    /// The cluster's name
    #[arg(long, default_value = "spiderpool")]
    name: String,
}

#[derive(Args)]
struct OptionalName {
    /// The cluster's name
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args)]
struct Up {
    #[command(flatten)]
    name: Name,
    /// How many nodes
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// The default network of pods
    #[arg(long, value_enum, default_value_t = Cni::CalicoLike)]
    cni: Cni,
    /// kube-proxy's mode
    #[arg(long, value_enum, default_value_t = Proxy::Nftables)]
    proxy: Proxy,
    /// How many underlay networks; nodes have eth1, eth2, .. in them
    #[arg(long, default_value_t = 1)]
    underlays: u8,
    /// What comes after the nodes' names: node1.DOMAIN
    #[arg(long)]
    domain: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Cni {
    /// A stand-in for Calico
    CalicoLike,
    /// A stand-in for Cilium
    CiliumLike,
    /// The reference plugin ptp
    Ptp,
}

#[derive(Clone, Copy, ValueEnum)]
enum Proxy {
    /// By nftables
    Nftables,
    /// By iptables
    Iptables,
}

#[derive(Args)]
struct Shell {
    /// node1, node2, .., fabric (the control plane), gateway, outside, client
    machine: String,
    #[command(flatten)]
    name: Name,
    /// The command; a shell if there is none
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Args)]
struct OneNode {
    /// node1, node2, ..
    node: String,
    #[command(flatten)]
    name: Name,
}

#[derive(Args)]
struct LoadImage {
    /// An OCI or Docker archive
    file: PathBuf,
    #[command(flatten)]
    name: Name,
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    ensure!(privilege::is_root(), "clusters are made of namespaces and cgroups: run it as root");
    match verb {
        Verb::Up(options) => up(&options),
        Verb::Down(Name { name }) => {
            let started = Instant::now();
            Cluster::remove(&name)?;
            println!("cluster {name} is gone, {:.1} s", started.elapsed().as_secs_f32());
            Ok(())
        }
        Verb::Status(OptionalName { name }) => {
            let names = name.map_or_else(Cluster::names, |name| Ok(vec![name]))?;
            show::status(&names);
            Ok(())
        }
        Verb::Shell(options) => shell(&options),
        Verb::PowerOff(options) => power_off(&options),
        Verb::PowerOn(options) => power_on(&options),
        Verb::AddNode(Name { name }) => add_node(&name),
        Verb::LoadImage(LoadImage { file, name }) => {
            let cluster = Cluster::find(&name.name)?;
            cluster.load_image(&file)?;
            println!("{} is on {} nodes", file.display(), cluster.nodes().len());
            Ok(())
        }
        Verb::Kubeconfig(Name { name }) => show::kubeconfig(&Cluster::find(&name)?),
    }
}

fn up(options: &Up) -> Result<()> {
    let started = Instant::now();
    let step = |text: &str| println!("[{:5.1} s] {text}", started.elapsed().as_secs_f32());
    let options = Options {
        name: options.name.name.clone(),
        nodes: options.nodes,
        cni: match options.cni {
            Cni::CalicoLike => DefaultCni::CalicoLike,
            Cni::CiliumLike => DefaultCni::CiliumLike,
            Cni::Ptp => DefaultCni::Ptp,
        },
        proxy: match options.proxy {
            Proxy::Nftables => ProxyMode::Nftables,
            Proxy::Iptables => ProxyMode::Iptables,
        },
        underlays: options.underlays,
        domain: options.domain.clone(),
        lifetime: Lifetime::UntilDown,
    };
    let cluster = Cluster::up_with_progress(&options, step)?;
    show::how_to_look_around(&cluster);
    Ok(())
}

fn power_off(options: &OneNode) -> Result<()> {
    let cluster = Cluster::find(&options.name.name)?;
    let node = cluster.node(&options.node)?;
    ensure!(node.machine().is_on(), "{} is off already", node.name);
    node.power_off()?;
    println!("{} is off", node.name);
    Ok(())
}

fn power_on(options: &OneNode) -> Result<()> {
    let started = Instant::now();
    let cluster = Cluster::find(&options.name.name)?;
    let node = cluster.node(&options.node)?;
    cluster.power_on(node)?;
    println!("{} is ready, {:.1} s", node.name, started.elapsed().as_secs_f32());
    Ok(())
}

fn add_node(cluster: &str) -> Result<()> {
    let started = Instant::now();
    let node = Cluster::find(cluster)?.add_node()?;
    println!("{} is ready, {:.1} s", node.name, started.elapsed().as_secs_f32());
    Ok(())
}

fn shell(options: &Shell) -> Result<()> {
    let cluster = Cluster::find(&options.name.name)?;
    let machines = cluster.machines();
    let names = || machines.iter().map(|machine| machine.name()).collect::<Vec<_>>().join(", ");
    let machine = machines.iter().find(|machine| machine.name() == options.machine);
    let machine =
        machine.with_context(|| format!("there is no machine {}, but {}", options.machine, names()))?;
    let mut command = machine.enter()?;
    cluster.export(&mut command);
    let programs = tools::folder_of_programs()?.join("bin");
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("PS1", format!("{}/{}:\\w# ", options.name.name, options.machine))
        .env("CONTAINER_RUNTIME_ENDPOINT", "unix:///run/containerd/containerd.sock")
        .env("CONTAINERD_NAMESPACE", "k8s.io");
    match options.command.as_slice() {
        [] => command.args(["bash", "--norc"]),
        words => command.args(words),
    };
    Err(command.exec()).context("cannot start testbox")
}
