//! The demo: the whole system at work, from a custom resource to a packet, with nothing imitated.
//!
//! `cargo xtask demo [--lab] [--keep]` builds everything and starts this.
#![forbid(unsafe_code)]

mod report;
mod show;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use spiderpool_core::ip::Family;
use spiderpool_tests::flow::{Flow, run_in_parallel};
use spiderpool_tests::lab::LabStage;
use spiderpool_tests::matrix::{DefaultRoute, Party};
use spiderpool_tests::stage::{RouteHints, Stage, without_gateway, works_without_gateway};
use spiderpool_tests::{privilege, teardown};

use report::{Column, Report};

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

    let mut stage: Box<dyn Stage> = Box::new(LabStage::start(step)?);
    let (report, live_change) = perform(&mut *stage, step)?;
    println!("\n{report}");
    let passed = report.passed() && live_change;
    if arguments.keep {
        show::how_to_look_around(&*stage, "Ctrl-C removes everything")?;
        loop {
            thread::park();
        }
    }
    stage.finish()?;
    before.check_nothing_left().context("after the demo")?;
    step("everything removed, nothing left");
    println!("demo: {}", if passed { "pass" } else { "FAIL" });
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

/// Runs all flows, shows what one looks at, and whether a change at run time reached the pods in time.
fn perform(stage: &mut dyn Stage, step: impl Fn(&str)) -> Result<(Report, bool)> {
    let mut report = Report::default();
    let mut pods = Vec::new();
    for hints in RouteHints::ALL {
        stage.set_route_hints(hints)?;
        for default_route in DefaultRoute::ALL {
            let name = format!("app-{}-hints-{}", default_route.nic(), hints.name());
            let begun = Instant::now();
            let pod = stage.add_pod(&name, default_route)?;
            step(&format!("pod {name}: there with eth0 and net1 after {:.0?}", begun.elapsed()));
            run_flows(stage, &pod, default_route, hints, &mut report)?;
            pods.push(pod);
        }
    }
    step("flows of all four pods");
    let live_change = show::all(stage, &pods)?;
    for (pod, default_route) in pods[2..].iter().zip(DefaultRoute::ALL) {
        compare_without_programs(stage, pod, default_route, &mut report)?;
    }
    step("the same flows with the programs detached");
    Ok((report, live_change))
}

fn run_flows(
    stage: &dyn Stage,
    pod: &Party,
    default_route: DefaultRoute,
    hints: RouteHints,
    report: &mut Report,
) -> Result<()> {
    let parties = stage.parties(pod, default_route);
    let column = Column::attached(default_route, hints);
    let node = stage.node();
    let mut flows: Vec<Flow> = Family::ALL.into_iter().flat_map(|family| parties.flows(family)).collect();
    report.run(column, &flows, node, &pod.place)?;
    if works_without_gateway(hints, default_route) {
        flows = Family::ALL.into_iter().flat_map(|family| parties.flows_without_gateway(family)).collect();
        without_gateway(stage, &pod.place, || report.run(column, &flows, node, &pod.place))??;
    }
    Ok(())
}

fn compare_without_programs(
    stage: &dyn Stage,
    pod: &Party,
    default_route: DefaultRoute,
    report: &mut Report,
) -> Result<()> {
    for nic in ["eth0", "net1", "sp0"] {
        pod.place.output("tc", &["qdisc", "del", "dev", nic, "clsact"])?;
    }
    let parties = stage.parties(pod, default_route);
    let flows: Vec<Flow> = Family::ALL.into_iter().flat_map(|family| parties.flows(family)).collect();
    report.compare(Column::detached(default_route), &flows, &run_in_parallel(&flows)?);
    Ok(())
}
