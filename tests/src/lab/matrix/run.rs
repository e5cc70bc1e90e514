//! Runs every flow of every setting: nodes at the same time, the pods of a node one after the other, the flows of a pod
//! several at a time.

use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow};
use spiderpool_core::ip::Family;

use super::{MatrixLab, PodUnderTest};
use crate::counters;
use crate::flow::{Flow, run_together, run_without_hope};
use crate::matrix::{Cell, DefaultNetwork, Gateway, ProxyMode, Results, Setting};

/// Pods have the numbers below this, in turns: ports and addresses of their Services are made of them. At most one of each network
/// is alive.
const POD_NUMBERS: u16 = 96;
/// Of how many cells of a pod that are wrong more is found out.
const LOOKED_INTO: usize = 6;

/// Runs all flows of pods as `settings` say.
pub fn run(lab: &mut MatrixLab, settings: &[Setting]) -> Result<Results> {
    let (mut results, number) = (Results::default(), AtomicU16::new(0));
    for proxy in ProxyMode::ALL {
        let now: Vec<Setting> = settings.iter().filter(|setting| setting.proxy == proxy).copied().collect();
        if now.is_empty() {
            continue;
        }
        lab.set_proxy_mode(proxy)?;
        let lab = &*lab;
        let of_network = &|network: DefaultNetwork| -> Result<Results> {
            let mut results = Results::default();
            for setting in now.iter().filter(|setting| setting.network == network) {
                let started = Instant::now();
                let number = number.fetch_add(1, Ordering::Relaxed) % POD_NUMBERS;
                let pod = lab.add_pod(*setting, number)?;
                let made = started.elapsed();
                let of_pod = run_pod(lab, &pod)?;
                lab.del_pod(pod)?;
                let (cells, time) = (of_pod.cells, started.elapsed());
                eprintln!("{setting}: {cells} cells in {time:.1?}, pod made in {made:.1?}");
                results.extend(of_pod);
            }
            Ok(results)
        };
        let of_networks = thread::scope(|scope| {
            let running: Vec<_> =
                DefaultNetwork::ALL.map(|network| scope.spawn(move || of_network(network))).into();
            let join = |thread: thread::ScopedJoinHandle<'_, Result<Results>>| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("the thread of a node panicked")))
            };
            running.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        for of_network in of_networks {
            results.extend(of_network);
        }
    }
    Ok(results)
}

fn run_pod(lab: &MatrixLab, pod: &PodUnderTest) -> Result<Results> {
    let hosts = lab.hosts(pod)?;
    let flows: Vec<Flow> = Family::ALL.into_iter().flat_map(|family| hosts.all_flows(family)).collect();
    let mut results = Results::default();
    for gateway in Gateway::ALL.into_iter().filter(|gateway| gateway.can_be(&pod.setting)) {
        lab.set_underlay_gateway(pod.setting.network, gateway)?;
        if gateway != Gateway::Alive {
            forget_neighbors(pod)?;
        }
        let can_work = |flow: &Flow| cell(pod, gateway, flow).impossible().is_none();
        let (served, beyond): (Vec<Flow>, Vec<Flow>) = flows.iter().cloned().partition(can_work);
        let outcomes = run_together(&served).into_iter().chain(run_without_hope(&beyond));
        // A machine that stands still for a second makes all flows late that are under way: they count once.
        let mut late = Vec::new();
        for (flow, outcome) in served.iter().chain(&beyond).zip(outcomes) {
            let cell = cell(pod, gateway, flow);
            if !results.enter(&cell, outcome.result.is_ok()) {
                let (told, works_again) = match &outcome.result {
                    Ok(()) => ("works, and is listed as impossible".to_owned(), false),
                    Err(error) if results.wrong.len() < LOOKED_INTO => {
                        let (again, works) = repeat(lab, pod, flow)?;
                        (format!("{error:#}; {again}"), works)
                    }
                    Err(error) => (format!("{error:#}"), false),
                };
                let told = format!("{}, underlay gateway {gateway}: {flow}: {told}", pod.setting);
                // A long run shows at once what it finds.
                eprintln!("{told}");
                let list = if works_again { &mut late } else { &mut results.wrong };
                list.push(told);
            }
        }
        if !late.is_empty() {
            results.late.push(late.join("\n"));
        }
        lab.set_underlay_gateway(pod.setting.network, Gateway::Alive)?;
    }
    Ok(results)
}

fn cell<'a>(pod: &PodUnderTest, gateway: Gateway, flow: &'a Flow) -> Cell<'a> {
    let (setting, family, protocol) = (pod.setting, flow.family(), flow.probe.protocol);
    Cell { setting, gateway, family, flow: &flow.name, protocol }
}

/// What is not permanent among the pod's neighbors in the underlay.
fn forget_neighbors(pod: &PodUnderTest) -> Result<()> {
    let flush = pod.setting.underlay_nics().iter().map(|nic| format!("neigh flush dev {nic}\n"));
    pod.pod.namespaces.ip(&flush.collect::<String>())
}

/// A failed flow again, alone, to see which counters move, and whether it works then.
fn repeat(lab: &MatrixLab, pod: &PodUnderTest, flow: &Flow) -> Result<(String, bool)> {
    let ids = counters::nic_ids(&pod.pod.namespaces)?;
    let read = || counters::read(lab.node(pod.setting.network), &ids);
    let before = read()?;
    let again = flow.run().result;
    let moved = counters::moved(&before, &read()?);
    let told = again.as_ref().map_or_else(|error| format!("{error:#}"), |()| "works".to_owned());
    Ok((format!("again, alone: {told}; counters that moved: {moved:?}"), again.is_ok()))
}
