//! `cargo xtask VERB`: the one tool of a developer of this project.
//!
//! Each verb is a file of its own. What takes long or talks to a cluster is not
//! here but in the crate `spiderpool-tests`, whose binaries the verbs start.
#![forbid(unsafe_code)]

mod architecture;
mod artifacts;
mod bench;
mod build;
mod build_ebpf;
mod chart;
mod ci;
mod cluster;
mod crds;
mod demo;
mod elf;
mod fuzz;
mod image;
mod kernel;
mod lint;
mod process;
mod setup;
mod test;
mod test_program;
mod vmtest;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The developer tool of Spiderpool: what a verb needs it installs first.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what the other verbs need
    Setup(setup::Options),
    /// Build everything: eBPF programs, agent, CNI plugins
    Build,
    /// Build the eBPF programs and list what is in the object
    BuildEbpf,
    /// Pack agent, controller, Multus and the reference plugins into container images
    Image(image::Options),
    /// Package the Helm chart with an index, for any web server
    Chart(chart::Options),
    /// Write the CRDs of the Helm chart from the Rust types
    Crds(crds::Options),
    /// Check formatting, clippy, generated files, bans and licences
    Lint,
    /// Run all tests, or those whose name contains FILTER
    Test(test::Options),
    /// Run tests of programs and kernel on Linux 5.10, 6.1 and 6.12, in virtual machines (needs root)
    Vmtest(vmtest::Options),
    /// What continuous integration runs: lint, then test
    Ci,
    /// Show Spiderpool at work on a cluster: two nodes, their pods, every flow (needs root)
    Demo(demo::Options),
    /// Start, show or end a cluster with kubelets on this machine (needs root)
    Cluster(cluster::Options),
    /// Fuzz everything that parses bytes from outside
    Fuzz(fuzz::Options),
    /// Measure address allocation, the CNI plugins, the dataplane or a whole cluster
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let Cli { verb } = Cli::parse();
    match run(verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not with {error:?}: that adds a backtrace when RUST_BACKTRACE is set, which helps nobody here.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match verb {
        Verb::Setup(options) => setup::run(&workspace, &options),
        Verb::Build => build::run(&workspace),
        Verb::BuildEbpf => build_ebpf::run(&workspace),
        Verb::Image(options) => image::run(&workspace, &options),
        Verb::Chart(options) => chart::run(&workspace, &options),
        Verb::Crds(options) => crds::run(&workspace, &options),
        Verb::Lint => lint::run(&workspace),
        Verb::Test(options) => test::run(&workspace, &options),
        Verb::Vmtest(options) => vmtest::run(&workspace, &options),
        Verb::Ci => ci::run(&workspace),
        Verb::Demo(options) => demo::run(&workspace, &options),
        Verb::Cluster(options) => cluster::run(&workspace, &options),
        Verb::Fuzz(options) => fuzz::run(&workspace, &options),
        Verb::Bench(options) => bench::run(&workspace, &options),
    }
}
