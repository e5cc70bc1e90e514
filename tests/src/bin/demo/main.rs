//! The demo: the whole system at work, from a custom resource to a packet, with nothing imitated.
//!
//! `cargo xtask demo [--keep]` builds everything and starts this.
#![forbid(unsafe_code)]

mod report;
mod show;

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use spiderpool_core::ip::Family;
use spiderpool_tests::flow::Flow;
use spiderpool_tests::lab::RouteHints;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::scenario::{Scenario, run_in_parallel};
use spiderpool_tests::{privilege, teardown};

use report::{Column, Report};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--keep" => true,
        other => bail!("unknown arguments {other:?}; the only one is --keep"),
    };
    ensure!(
        privilege::is_root(),
        "the demo makes network namespaces and loads eBPF programs: run it as root"
    );
    stop_on_interrupt()?;
    let before = teardown::Snapshot::take()?;
    let started = Instant::now();
    let step = |text: &str| println!("[{:5.1} s] {text}", started.elapsed().as_secs_f32());

    let mut scenario = Scenario::start(step)?;
    let mut report = Report::default();
    let mut pods = Vec::new();
    for hints in RouteHints::ALL {
        scenario.set_route_hints(hints)?;
        for default_route in DefaultRoute::ALL {
            let name = format!("app-{}-hints-{}", default_route.nic(), hints.name());
            let begun = Instant::now();
            let pod = scenario.add_pod(&name, default_route)?;
            step(&format!("pod {name}: CNI ADD of eth0 and net1 in {:.0?}", begun.elapsed()));
            run_flows(&scenario, &pod, default_route, hints, &mut report)?;
            pods.push(pod);
        }
    }
    step("flows of all four pods");
    let live_change = show::all(&scenario, &pods)?;
    for (pod, default_route) in pods[2..].iter().zip(DefaultRoute::ALL) {
        compare_without_programs(&scenario, pod, default_route, &mut report)?;
    }
    step("the same flows with the programs detached");
    println!("\n{report}");
    let passed = report.passed() && live_change;
    if keep {
        show::how_to_look_around(&scenario, &pods)?;
        loop {
            thread::park();
        }
    }
    scenario.finish(pods)?;
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

fn run_flows(
    scenario: &Scenario,
    pod: &Pod,
    default_route: DefaultRoute,
    hints: RouteHints,
    report: &mut Report,
) -> Result<()> {
    let parties = scenario.parties(pod, default_route)?;
    let column = Column::attached(default_route, hints);
    let node = scenario.node();
    let mut flows: Vec<Flow> = Family::ALL.into_iter().flat_map(|family| parties.flows(family)).collect();
    report.run(column, &flows, node, pod)?;
    // Without hints a packet whose next hop does not resolve never reaches a program.
    if hints == RouteHints::Auto || default_route == DefaultRoute::Eth0 {
        flows = Family::ALL.into_iter().flat_map(|family| parties.flows_without_gateway(family)).collect();
        scenario.without_gateway(pod, || report.run(column, &flows, node, pod))??;
    }
    Ok(())
}

fn compare_without_programs(
    scenario: &Scenario,
    pod: &Pod,
    default_route: DefaultRoute,
    report: &mut Report,
) -> Result<()> {
    for nic in ["eth0", "net1", "sp0"] {
        pod.place.output("tc", &["qdisc", "del", "dev", nic, "clsact"])?;
    }
    let parties = scenario.parties(pod, default_route)?;
    let flows: Vec<Flow> = Family::ALL.into_iter().flat_map(|family| parties.flows(family)).collect();
    report.compare(Column::detached(default_route), &flows, &run_in_parallel(&flows)?);
    Ok(())
}
