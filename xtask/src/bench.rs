//! `bench`: builds everything and starts the benchmarks, a binary of `spiderpool-tests`.

use std::{os::unix::process::CommandExt as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{
    artifacts, build, process,
    setup::{self, Component},
    workspace::Workspace,
};

#[derive(Args)]
pub(crate) struct Options {
    /// What to measure
    what: Subject,
    /// Another agent of the same interface, measured in alternation
    #[arg(long, value_name = "PATH")]
    peer_agent: Option<PathBuf>,
    /// Another IPAM plugin of the same configuration, measured in alternation
    #[arg(long, value_name = "PATH")]
    peer_plugin: Option<PathBuf>,
    /// Another coordinator plugin of the same interface, measured in alternation
    #[arg(long, value_name = "PATH")]
    peer_coordinator: Option<PathBuf>,
    /// Target directory of another build, whose dataplane is measured in alternation
    #[arg(long, value_name = "DIR")]
    peer_build: Option<PathBuf>,
    /// Print an array of results as JSON
    #[arg(long)]
    json: bool,
    /// What follows `--` goes to the benchmark program
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Subject {
    /// Addresses from one pool by many agents on a real API server
    Ipam,
    /// ADD and DEL of the CNI plugins, whole processes
    Cni,
    /// Latency and throughput of the eBPF dataplane
    Dataplane,
    /// A cluster with kubelets: installation, the start of many pods, memory
    Cluster,
    /// Objects through the controller's webhooks at a steady rate: median and p99 of the API server's answers, with webhooks and
    /// without, and the controller's memory after each round
    Webhook,
    /// What 100, 250 and 500 agents cost an API server: CPU and p99 as a slope over their number, events, a restart
    Scale,
}

/// What something runs in, which says what must be installed for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Environment {
    /// Nodes are namespaces.
    Lab,
    /// Nodes have kubelets.
    Cluster,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let subject = options.what.to_possible_value().context("every subject has a name")?;
    let mut arguments = vec![subject.get_name().to_owned()];
    let peers = [
        ("--peer-agent", &options.peer_agent),
        ("--peer-plugin", &options.peer_plugin),
        ("--peer-coordinator", &options.peer_coordinator),
        ("--peer-build", &options.peer_build),
    ];
    for (flag, path) in peers {
        if let Some(path) = path {
            let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
            arguments.extend([flag.to_owned(), path.display().to_string()]);
        }
    }
    arguments.extend(options.json.then(|| "--json".to_owned()));
    arguments.extend(options.arguments.iter().cloned());
    let environment =
        if matches!(options.what, Subject::Cluster) { Environment::Cluster } else { Environment::Lab };
    start(workspace, "bench", environment, &arguments)
}

/// Builds what the program needs and becomes it: it gets Ctrl-C itself, and its exit code is ours.
pub(crate) fn start(
    workspace: &Workspace,
    name: &str,
    environment: Environment,
    arguments: &[String],
) -> Result<()> {
    ensure!(
        setup::is_root(),
        "{name} makes network namespaces and loads eBPF programs, which only root may do. Run\n\n    \
         sudo -E env \"PATH=$PATH\" cargo xtask {name} {}",
        arguments.join(" ")
    );
    setup::ensure(workspace, Component::RUN)?;
    if environment == Environment::Cluster {
        setup::ensure(workspace, Component::CLUSTER)?;
    }
    build::build(workspace)?;
    become_program(workspace, name, arguments)
}

/// Becomes a binary of `spiderpool-tests`; what it starts is there already.
pub(crate) fn become_program(workspace: &Workspace, name: &str, arguments: &[String]) -> Result<()> {
    let mut cargo = build::release(workspace);
    cargo.args(["--package", "spiderpool-tests", "--bin", name]);
    let programs = artifacts::executables(&mut cargo)?;
    let program = programs.first().with_context(|| format!("spiderpool-tests has no binary {name}"))?;
    let mut command = process::command(program);
    workspace.export(&mut command);
    let error = command.args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}
