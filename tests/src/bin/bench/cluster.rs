//! A whole cluster: how long an installation takes, what Spiderpool adds to the start of a pod, and how much memory
//! its processes need.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use spiderpool_tests::cluster::{Cluster, Options};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::place::Place;
use spiderpool_tests::release::{self, NETWORK};
use spiderpool_tests::workload::Deployment;

use super::samples::{Pair, Report};

/// macvlan with host-local in place of our IPAM, and no coordinator.
const HOST_LOCAL: &str = "default/macvlan-host-local";

#[derive(Args)]
pub(crate) struct ClusterArguments {
    /// Rounds of everything.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Pods that are started at once.
    #[arg(long, default_value_t = 60)]
    pods: u32,
}

/// One way to wire up the pods.
struct Variant {
    name: &'static str,
    network: Option<&'static str>,
    /// The chart value with which it runs.
    value: &'static str,
    running: Pair,
}

pub(crate) fn measure(arguments: &ClusterArguments, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    release::load_images(&cluster)?;
    let mut install = Pair::default();
    for round in 0..arguments.rounds {
        if round > 0 {
            release::uninstall(&cluster)?;
        }
        let begun = Instant::now();
        release::install(&cluster, &[])?;
        install.ours.push(begun.elapsed().as_secs_f64());
    }
    report.add("helm install --wait, images present", "s", &install);
    release::apply_network(&cluster)?;
    apply_host_local(&cluster)?;
    start_pods(&cluster, arguments, report)?;
    measure_memory(&cluster, report)?;
    cluster.down()
}

fn start_pods(cluster: &Cluster, arguments: &ClusterArguments, report: &mut Report) -> Result<()> {
    const OFF: &str = "ipam.enableDuplicateAddressDetection=false";
    const ON: &str = "ipam.enableDuplicateAddressDetection=true";
    let variant = |name, network, value| Variant { name, network, value, running: Pair::default() };
    let mut variants = [
        variant("no second NIC", None, OFF),
        variant("net1 by macvlan and host-local", Some(HOST_LOCAL), OFF),
        variant("net1 by macvlan and Spiderpool", Some(NETWORK), OFF),
        variant("the same, DAD left on", Some(NETWORK), ON),
    ];
    let mut plugins: [Pair; 3] = Default::default();
    for _ in 0..arguments.rounds {
        for variant in &mut variants {
            release::upgrade(cluster, &[variant.value])?;
            let seen = log_lengths(cluster)?;
            let mut deployment = Deployment::plain("many").times(arguments.pods);
            deployment.networks.extend(variant.network.map(str::to_owned));
            let begun = Instant::now();
            deployment.start(cluster)?;
            variant.running.ours.push(begun.elapsed().as_secs_f64());
            if variant.network == Some(NETWORK) && variant.value == OFF {
                let [ipam, coordinator] = adds(cluster, &seen)?;
                ensure!(ipam.len() == coordinator.len(), "ADDs: {} and {}", ipam.len(), coordinator.len());
                for (ipam, coordinator) in ipam.into_iter().zip(coordinator) {
                    plugins[0].ours.push(ipam);
                    plugins[1].ours.push(coordinator);
                    plugins[2].ours.push(ipam + coordinator);
                }
            }
            deployment.delete(cluster)?;
        }
    }
    for variant in &variants {
        let name = format!("{} pods from apply to Running: {}", arguments.pods, variant.name);
        report.add(name, "s", &variant.running);
    }
    for (pair, name) in plugins.iter().zip(["spiderpool", "coordinator", "both together"]) {
        report.add(format!("CNI ADD under this load: {name}"), "ms", pair);
    }
    Ok(())
}

const LOGS: [&str; 2] = ["/var/log/spidernet/spiderpool.log", "/var/log/spidernet/coordinator.log"];

/// How long each plugin's log is on each node.
fn log_lengths(cluster: &Cluster) -> Result<Vec<[usize; 2]>> {
    cluster.nodes().iter().map(|node| Ok(LOGS.map(|path| read(&node.place(), path).len()))).collect()
}

fn read(place: &Place, path: &str) -> String {
    // There is none before a node's first pod.
    place.output("cat", &[path]).unwrap_or_default()
}

/// How many milliseconds each ADD of each plugin took since its log had that length.
fn adds(cluster: &Cluster, seen: &[[usize; 2]]) -> Result<[Vec<f64>; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for (node, seen) in cluster.nodes().iter().zip(seen) {
        for ((path, seen), times) in LOGS.iter().zip(seen).zip(&mut times) {
            for line in read(&node.place(), path)[*seen..].lines() {
                let line: Value = serde_json::from_str(line)?;
                if line["message"] == "request done" && line["span"]["command"] == "ADD" {
                    times.push(line["micros"].as_f64().context("no time")? / 1000.0);
                }
            }
        }
    }
    Ok(times)
}

fn apply_host_local(cluster: &Cluster) -> Result<()> {
    // One range per node would be an administrator's work: each node has its own file of leases, and the pods of this
    // benchmark do not talk.
    let ranges = json!([[{"subnet": "10.66.0.0/16", "rangeStart": "10.66.20.1", "rangeEnd": "10.66.20.200"}],
        [{"subnet": "fd66::/64", "rangeStart": "fd66::14:1", "rangeEnd": "fd66::14:c8"}]]);
    let config = json!({
        "cniVersion": "0.3.1", "name": "macvlan-host-local", "type": "macvlan", "master": "eth1", "mode": "bridge",
        "ipam": {"type": "host-local", "ranges": ranges, "dataDir": "/run/host-local"},
    });
    let (namespace, name) = HOST_LOCAL.split_once('/').context("a network without namespace")?;
    let network = json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace}, "spec": {"config": config.to_string()},
    });
    cluster.apply(&network.to_string()).map(drop)
}

/// Memory after all those pods, as the kernel counts it.
fn measure_memory(cluster: &Cluster, report: &mut Report) -> Result<()> {
    for program in ["spiderpool-agent", "spiderpool-controller"] {
        let (mut resident, mut private) = (Pair::default(), Pair::default());
        for node in cluster.nodes() {
            let place = node.place();
            let Ok(ids) = place.output("pgrep", &["-x", &program[..program.len().min(15)]]) else { continue };
            for id in ids.split_whitespace() {
                let status = place.output("cat", &[&format!("/proc/{id}/status")])?;
                resident.ours.push(mebibytes(&status, "VmRSS:")?);
                private.ours.push(mebibytes(&status, "RssAnon:")?);
            }
        }
        report.add(format!("{program}: resident memory after it"), "MiB", &resident);
        report.add(format!("{program}: of it not backed by the binary"), "MiB", &private);
    }
    Ok(())
}

fn mebibytes(status: &str, key: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes / 1024.0)
}
