//! The demo: the whole system at work, from a custom resource to a packet, with nothing imitated.
//!
//! `cargo xtask demo [--lab] [--keep]` builds everything and starts this.
#![forbid(unsafe_code)]

mod applications;
mod report;
mod show;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use spiderpool_core::ip::Family;
use spiderpool_tests::cluster::{Cluster, ClusterFixture, Lifetime, Options};
use spiderpool_tests::fixture::{Fixture, RouteHints, without_gateway, works_without_gateway};
use spiderpool_tests::flow::{Flow, run_in_parallel};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::lab::LabFixture;
use spiderpool_tests::matrix::{DefaultRoute, Host};
use spiderpool_tests::{privilege, release, teardown};

use applications::Applications;
use report::{Column, Report};

/// The name of the demo's cluster.
const CLUSTER: &str = "demo";

#[derive(Parser)]
#[command(name = "demo", about = "The whole system at work, with a verdict for every flow")]
struct Arguments {
    /// Leave everything up at the end, and print how to look around.
    #[arg(long)]
    keep: bool,
    /// Without kubelets: nodes and pods are namespaces, the CNI chain is executed by the demo.
    #[arg(long)]
    lab: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    ensure!(
        privilege::is_root(),
        "the demo makes network namespaces and loads eBPF programs: run it as root"
    );
    stop_on_interrupt()?;
    let before = teardown::Snapshot::take()?;
    let started = Instant::now();
    let step = |text: &str| println!("[{:5.1} s] {text}", started.elapsed().as_secs_f32());

    let passed =
        if arguments.lab { in_lab(arguments.keep, step)? } else { on_cluster(arguments.keep, step)? };
    before.check_nothing_left().context("after the demo")?;
    step("everything removed, nothing left");
    println!("demo: {}", if passed { "pass" } else { "FAIL" });
    Ok(passed)
}

/// Nodes and pods are namespaces.
fn in_lab(keep: bool, step: impl Fn(&str) + Copy) -> Result<bool> {
    let mut fixture = Box::new(LabFixture::start(step)?);
    let passed = perform(&mut *fixture, step)?;
    if keep {
        show::how_to_look_around(&*fixture, "Ctrl-C removes everything")?;
        loop {
            thread::park();
        }
    }
    fixture.finish()?;
    Ok(passed)
}

/// Nodes have kubelets, Spiderpool is installed by Helm.
fn on_cluster(keep: bool, step: impl Fn(&str) + Copy) -> Result<bool> {
    let lifetime = if keep { Lifetime::UntilDown } else { Lifetime::Process };
    let cluster = Cluster::up_with_progress(
        &Options { lifetime, name: CLUSTER.to_owned(), ..Options::default() },
        step,
    )?;
    release::load_images(&cluster)?;
    step("images of agent, controller and Multus on the nodes");
    println!("\n$ {}\n", release::command_line("install", &applications::VALUES));
    release::install(&cluster, &applications::VALUES)?;
    step("helm: everything ready");
    print!("\n{}\n", cluster.kubectl(&["get", "pods", "--namespace", release::NAMESPACE, "-o", "wide"])?);
    release::apply_network(&cluster)?;
    let mut fixture = Box::new(ClusterFixture::start(&cluster, step)?);
    let passed = perform(&mut *fixture, step)?;
    let applications = Applications::show(&cluster, step)?;
    if keep {
        show::how_to_look_around(
            &*fixture,
            &format!("`cargo xtask cluster down --name {CLUSTER}` removes it"),
        )?;
        // Not this process's any more.
        std::process::exit(i32::from(!passed));
    }
    applications.delete(&cluster)?;
    fixture.finish()?;
    step("pods and SpiderSubnets deleted, all addresses free");
    release::uninstall(&cluster)?;
    step("helm uninstall");
    cluster.down()?;
    Ok(passed)
}

/// Ctrl-C ends the process; the kernel then ends what it started, and the janitor removes the state folder.
fn stop_on_interrupt() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let stopped = tokio::signal::ctrl_c().await;
            eprintln!("demo: interrupted, removing everything");
            drop(stopped);
            std::process::exit(130);
        });
    });
    Ok(())
}

/// Runs all flows and shows what one looks at. Whether everything worked.
fn perform(fixture: &mut dyn Fixture, step: impl Fn(&str)) -> Result<bool> {
    let mut report = Report::default();
    let mut pods = Vec::new();
    for hints in RouteHints::ALL {
        fixture.set_route_hints(hints)?;
        for default_route in DefaultRoute::ALL {
            let name = format!("app-{}-hints-{}", default_route.nic(), hints.name());
            let begun = Instant::now();
            let pod = fixture.add_pod(&name, default_route)?;
            step(&format!("pod {name}: there with eth0 and net1 after {:.0?}", begun.elapsed()));
            run_flows(fixture, &pod, default_route, hints, &mut report)?;
            pods.push(pod);
        }
    }
    step("flows of all four pods");
    let live_change = show::all(fixture, &pods)?;
    for (pod, default_route) in pods[2..].iter().zip(DefaultRoute::ALL) {
        compare_without_programs(fixture, pod, default_route, &mut report)?;
    }
    step("the same flows with the programs detached");
    println!("\n{report}");
    Ok(report.passed() && live_change)
}

fn run_flows(
    fixture: &dyn Fixture,
    pod: &Host,
    default_route: DefaultRoute,
    hints: RouteHints,
    report: &mut Report,
) -> Result<()> {
    let hosts = fixture.hosts(pod, default_route);
    let column = Column::attached(default_route, hints);
    let node = fixture.node();
    let mut flows: Vec<Flow> = Family::ALL.into_iter().flat_map(|family| hosts.flows(family)).collect();
    report.run(column, &flows, node, &pod.namespaces)?;
    if works_without_gateway(hints, default_route) {
        flows = Family::ALL.into_iter().flat_map(|family| hosts.flows_without_gateway(family)).collect();
        without_gateway(fixture, &pod.namespaces, || report.run(column, &flows, node, &pod.namespaces))??;
    }
    Ok(())
}

fn compare_without_programs(
    fixture: &dyn Fixture,
    pod: &Host,
    default_route: DefaultRoute,
    report: &mut Report,
) -> Result<()> {
    for nic in ["eth0", "net1", "sp0"] {
        pod.namespaces.output("tc", &["qdisc", "del", "dev", nic, "clsact"])?;
    }
    let hosts = fixture.hosts(pod, default_route);
    let flows: Vec<Flow> = Family::ALL.into_iter().flat_map(|family| hosts.flows(family)).collect();
    report.compare(Column::detached(default_route), &flows, &run_in_parallel(&flows));
    Ok(())
}
