//! Spiderpool on a cluster as a user has it: images, `helm install`, pools, a SpiderMultusConfig.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::Cluster;
use crate::images;
use crate::kubectl::Kubectl as _;
use crate::poll;
use crate::tools;
use crate::topology::addresses;

/// The release's name.
pub const RELEASE: &str = "spiderpool";
/// The namespace that it is installed in.
pub const NAMESPACE: &str = "spiderpool";
/// The network of the pods' net1.
pub const NETWORK: &str = "default/macvlan-eth1";

/// How long helm waits.
const HELM_LIMIT: &str = "120s";
const NETWORK_LIMIT: Duration = Duration::from_secs(20);
const END_LIMIT: Duration = Duration::from_mins(1);

/// What the tests set: the dataplane of the README, and pools of the cluster's underlay.
fn values() -> Vec<String> {
    let [v4, v6] = addresses::UNDERLAY;
    let gateway = addresses::UNDERLAY_GATEWAY;
    [
        "coordinator.dataplane=ebpf".to_owned(),
        "clusterDefaultPool.installIPv4IPPool=true".to_owned(),
        "clusterDefaultPool.installIPv6IPPool=true".to_owned(),
        format!("clusterDefaultPool.ipv4Subnet={v4}"),
        format!("clusterDefaultPool.ipv6Subnet={v6}"),
        "clusterDefaultPool.ipv4IPRanges={10.66.10.1-10.66.10.200}".to_owned(),
        "clusterDefaultPool.ipv6IPRanges={fd66::a:1-fd66::a:c8}".to_owned(),
        format!("clusterDefaultPool.ipv4Gateway={}", gateway.v4),
        format!("clusterDefaultPool.ipv6Gateway={}", gateway.v6),
    ]
    .into()
}

/// Loads the images that `cargo xtask image` made onto every node.
pub fn load_images(cluster: &Cluster) -> Result<()> {
    // Without the reference plugins: the cluster's default network has brought them.
    let [agent, controller, multus, _] = images::NAMES;
    for image in [agent, controller, multus] {
        cluster.load_image(&images::packed(image)?)?;
    }
    Ok(())
}

/// What a user types for `helm install` or `helm upgrade` as the tests do it, with `more` values after the tests' own.
pub fn command_line(verb: &str, more: &[&str]) -> String {
    let head =
        format!("helm {verb} {RELEASE} charts/spiderpool --namespace {NAMESPACE} --create-namespace --wait");
    let settings = values().into_iter().chain(more.iter().map(|value| (*value).to_owned())).map(|value| {
        // Braces mean something to a shell.
        let quote = if value.contains('{') { "'" } else { "" };
        format!("--set {quote}{value}{quote}")
    });
    [head].into_iter().chain(settings).collect::<Vec<_>>().join(" \\\n    ")
}

/// `helm install`, with `more` values after the tests' own; waits until everything is ready.
pub fn install(cluster: &Cluster, more: &[&str]) -> Result<()> {
    helm(cluster, &["install", "--create-namespace"], more)
}

/// `helm upgrade`, with `more` values after the tests' own; waits until everything is ready.
pub fn upgrade(cluster: &Cluster, more: &[&str]) -> Result<()> {
    helm(cluster, &["upgrade"], more)
}

fn helm(cluster: &Cluster, verb: &[&str], more: &[&str]) -> Result<()> {
    let chart = tools::chart()?.display().to_string();
    let mut arguments: Vec<&str> = verb.to_vec();
    arguments.extend([RELEASE, &chart, "--namespace", NAMESPACE, "--wait", "--timeout", HELM_LIMIT]);
    let own = values();
    for value in own.iter().map(String::as_str).chain(more.iter().copied()) {
        arguments.extend(["--set", value]);
    }
    cluster.helm(&arguments).map(drop).with_context(|| state(cluster))
}

/// `helm uninstall`, and the namespace with it.
pub fn uninstall(cluster: &Cluster) -> Result<()> {
    let arguments = ["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", HELM_LIMIT];
    cluster.helm(&arguments).with_context(|| state(cluster))?;
    poll::until("the end of Spiderpool's pods", END_LIMIT, || {
        let left = cluster.kubectl(&["get", "pods", "--namespace", NAMESPACE, "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

/// What one looks at when an installation does not become ready.
fn state(cluster: &Cluster) -> String {
    let look = |arguments: &[&str]| {
        let arguments = [arguments, &["--namespace", NAMESPACE]].concat();
        cluster.kubectl(&arguments).unwrap_or_else(|error| format!("{error:#}\n"))
    };
    let logs = |name: &str| {
        look(&[
            "logs",
            "--all-containers",
            "--tail=20",
            "--prefix",
            "-l",
            &format!("app.kubernetes.io/component={name}"),
        ])
    };
    [
        look(&["get", "pods,jobs", "-o", "wide"]),
        look(&["get", "events", "--sort-by=.lastTimestamp"]),
        logs("spiderpool-agent"),
        logs("spiderpool-controller"),
        logs("spiderpool-init"),
    ]
    .concat()
}

/// Applies the SpiderMultusConfig of [`NETWORK`]: macvlan on the nodes' eth1, addresses from the default pools. Returns when
/// pods can ask for it.
pub fn apply_network(cluster: &Cluster) -> Result<()> {
    let (namespace, name) = NETWORK.split_once('/').context("a network without namespace")?;
    let network = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"cniType": "macvlan", "macvlan": {"master": ["eth1"]}},
    });
    cluster.apply(&network.to_string())?;
    poll::until("the NetworkAttachmentDefinition of the network", NETWORK_LIMIT, || {
        cluster.kubectl(&["get", "net-attach-def", name, "--namespace", namespace])
    })?;
    Ok(())
}
