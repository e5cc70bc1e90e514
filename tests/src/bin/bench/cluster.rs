//! A whole cluster: how long an installation takes, what Spiderpool adds to the start of a pod, and how much memory
//! its processes need.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use spiderpool_tests::cluster::{Cluster, Options};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::release::{self, NETWORK};
use spiderpool_tests::workload::Deployment;

use super::samples::{Pair, Report, Samples};

/// macvlan with host-local in place of our IPAM, and no coordinator.
const HOST_LOCAL: &str = "default/macvlan-host-local";

/// A value that the pods of one variant run with and those of the others do not.
const DETECTION: &str = "ipam.enableDuplicateAddressDetection";

#[derive(Args)]
pub(crate) struct ClusterArguments {
    /// Rounds of everything.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Pods that are started at once.
    #[arg(long, default_value_t = 60)]
    pods: u32,
    /// Pods that are started one after the other.
    #[arg(long, default_value_t = 5)]
    single_pods: u32,
}

/// One way to wire up the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Spiderpool,
    HostLocal,
    NoSecondNic,
    DetectionOn,
}

impl Variant {
    const ALL: [Self; 4] = [Self::Spiderpool, Self::HostLocal, Self::NoSecondNic, Self::DetectionOn];

    fn name(self) -> &'static str {
        match self {
            Self::Spiderpool => "net1 by Spiderpool",
            Self::HostLocal => "net1 by host-local",
            Self::NoSecondNic => "no net1",
            Self::DetectionOn => "address detection on",
        }
    }

    fn network(self) -> Option<&'static str> {
        match self {
            Self::Spiderpool | Self::DetectionOn => Some(NETWORK),
            Self::HostLocal => Some(HOST_LOCAL),
            Self::NoSecondNic => None,
        }
    }
}

/// Times of one variant.
#[derive(Debug, Default)]
struct Times {
    /// From apply to all running, in seconds.
    many: Samples,
    /// The same for one pod.
    single: Samples,
    /// ADD of the IPAM plugin, of the coordinator, and their sum per pod, in milliseconds, while many start.
    plugins_many: [Samples; 3],
    /// The same while one starts.
    plugins_single: [Samples; 3],
}

pub(crate) fn measure(arguments: &ClusterArguments, report: &mut Report) -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    release::load_images(&cluster)?;
    // On a user's nodes they have been on the disk for a while.
    nix::unistd::sync();
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
    let mut times: [Times; 4] = Default::default();
    // Nobody's first pods: containerd unpacks images, programs come into the page cache.
    let warm_up = Deployment::underlay("warm-up", NETWORK).times(4);
    warm_up.start(cluster)?;
    warm_up.delete(cluster)?;
    let mut detection = false;
    for round in 0..arguments.rounds {
        // Each begins once: the first has the fewest pods to clean up after.
        for turn in 0..Variant::ALL.len() {
            let index = (round + turn) % Variant::ALL.len();
            let variant = Variant::ALL[index];
            if detection != (variant == Variant::DetectionOn) {
                detection = !detection;
                release::upgrade(cluster, &[&format!("{DETECTION}={detection}")])?;
            }
            start_variant(cluster, arguments, variant, &mut times[index]).with_context(|| variant.name())?;
        }
    }
    let [ours, peers @ ..] = times;
    for (variant, peer) in Variant::ALL.iter().skip(1).zip(peers) {
        let row = |what: &str| format!("{what}; peer: {}", variant.name());
        let pair = |ours: &Samples, peer| Pair { ours: ours.clone(), peer };
        let many = format!("{} pods from apply to Running", arguments.pods);
        report.add(row(&many), "s", &pair(&ours.many, peer.many));
        report.add(row("one pod from apply to Running"), "s", &pair(&ours.single, peer.single));
    }
    for (plugins, when) in [(ours.plugins_single, "one pod"), (ours.plugins_many, "many pods")] {
        for (samples, name) in plugins.into_iter().zip(["spiderpool", "coordinator", "both together"]) {
            let pair = Pair { ours: samples, ..Pair::default() };
            report.add(format!("ADD while {when} started: {name}"), "ms", &pair);
        }
    }
    Ok(())
}

fn start_variant(
    cluster: &Cluster,
    arguments: &ClusterArguments,
    variant: Variant,
    times: &mut Times,
) -> Result<()> {
    let mut deployment = Deployment::plain("many").times(arguments.pods);
    deployment.networks.extend(variant.network().map(str::to_owned));
    times.many.push(timed(cluster, &deployment, variant, &mut times.plugins_many)?);
    for index in 0..arguments.single_pods {
        let single = Deployment { name: format!("single-{index}"), replicas: 1, ..deployment.clone() };
        times.single.push(timed(cluster, &single, variant, &mut times.plugins_single)?);
    }
    Ok(())
}

/// Seconds until all pods of it run; they are gone afterwards.
fn timed(
    cluster: &Cluster,
    deployment: &Deployment,
    variant: Variant,
    plugins: &mut [Samples; 3],
) -> Result<f64> {
    let seen = log_lengths(cluster)?;
    let begun = Instant::now();
    deployment.start(cluster)?;
    let seconds = begun.elapsed().as_secs_f64();
    if variant == Variant::Spiderpool {
        for [ipam, coordinator] in adds(cluster, &seen)? {
            plugins[0].push(ipam);
            plugins[1].push(coordinator);
            plugins[2].push(ipam + coordinator);
        }
    }
    deployment.delete(cluster)?;
    Ok(seconds)
}

const LOGS: [&str; 2] = ["/var/log/spidernet/spiderpool.log", "/var/log/spidernet/coordinator.log"];

/// How long each plugin's log is on each node.
fn log_lengths(cluster: &Cluster) -> Result<Vec<[usize; 2]>> {
    cluster.nodes().iter().map(|node| Ok(LOGS.map(|path| read(&node.namespaces(), path).len()))).collect()
}

fn read(namespaces: &Namespaces, path: &str) -> String {
    // There is none before a node's first pod.
    namespaces.output("cat", &[path]).unwrap_or_default()
}

/// How many milliseconds the ADDs of both plugins took for each sandbox since the logs had that length.
fn adds(cluster: &Cluster, seen: &[[usize; 2]]) -> Result<Vec<[f64; 2]>> {
    let mut sandboxes = BTreeMap::<String, [f64; 2]>::new();
    for (node, seen) in cluster.nodes().iter().zip(seen) {
        for (plugin, (path, seen)) in LOGS.iter().zip(seen).enumerate() {
            for line in read(&node.namespaces(), path)[*seen..].lines() {
                let line: Value = serde_json::from_str(line)?;
                if line["message"] == "request done" && line["span"]["command"] == "ADD" {
                    let sandbox = line["span"]["container_id"].as_str().context("no container")?;
                    let times = sandboxes.entry(sandbox.to_owned()).or_default();
                    times[plugin] += line["micros"].as_f64().context("no time")? / 1000.0;
                }
            }
        }
    }
    ensure!(
        sandboxes.values().flatten().all(|time| *time > 0.0),
        "a plugin was not called for a sandbox: {sandboxes:?}"
    );
    Ok(sandboxes.into_values().collect())
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
            let namespaces = node.namespaces();
            let Ok(ids) = namespaces.output("pgrep", &["-x", &program[..program.len().min(15)]]) else {
                continue;
            };
            for id in ids.split_whitespace() {
                let status = namespaces.output("cat", &[&format!("/proc/{id}/status")])?;
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
