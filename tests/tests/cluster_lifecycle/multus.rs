//! Multus as the chart puts it on nodes that have a default CNI and nothing else.

use std::time::Duration;

use crate::shared::on_cluster;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spiderpool_tests::cluster::Cluster;
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::release::{self, NAMESPACE, NETWORK};
use spiderpool_tests::workload::Deployment;
use spiderpool_tests::{images, poll};

const LIMIT: Duration = Duration::from_secs(30);
const CONF: &str = "/etc/cni/net.d/00-multus.conf";
const DEFAULT: &str = "/etc/cni/net.d/10-default.conflist";

fn sh(node: &Namespaces, command: &str) -> Result<String> {
    node.output("sh", &["-c", command])
}

/// The default network as Multus' configuration has it.
fn delegate(node: &Namespaces) -> Result<Value> {
    let conf: Value = serde_json::from_str(&sh(node, &format!("cat {CONF}"))?)?;
    conf["delegates"].get(0).cloned().context("no delegate")
}

fn default_network(node: &Namespaces) -> Result<Value> {
    Ok(serde_json::from_str(&sh(node, &format!("cat {DEFAULT}"))?)?)
}

fn follows(node: &Namespaces) -> Result<()> {
    poll::until("Multus' configuration with the default network of now", LIMIT, || {
        ensure!(delegate(node)? == default_network(node)?, "not yet");
        Ok(())
    })
}

fn first_file(node: &Namespaces) -> Result<String> {
    Ok(sh(node, "ls /etc/cni/net.d")?.lines().next().unwrap_or_default().to_owned())
}

#[test]
fn multus_comes_before_the_default_network_and_follows_what_changes_on_the_node() {
    on_cluster("multus_comes_before_the_default_network", |cluster| {
        let node = cluster.nodes()[0].namespaces();
        ensure!(first_file(&node)? == "00-multus.conf", "{}", first_file(&node)?);
        follows(&node)?;
        // As a CNI's daemon does after a reboot: gone, then there again, and not the same.
        let edit = format!(
            "cp {DEFAULT} /tmp/default && rm {DEFAULT} && sleep 3 && \
            sed 's/\"name\": *\"/&x-/' /tmp/default > {DEFAULT}"
        );
        sh(&node, &edit)?;
        follows(&node)?;
        sh(&node, &format!("cp /tmp/default {DEFAULT}"))?;
        follows(&node)?;
        comes_back(&node)?;
        renamed_by_cilium(cluster, &node)?;
        restart_changes_nothing(cluster, &node)?;
        let pods = Deployment::underlay("by-multus", NETWORK).times(2).start(cluster)?;
        ensure!(pods.iter().all(|pod| pod.net1().is_ok()), "{pods:?}");
        Ok(())
    });
}

fn comes_back(node: &Namespaces) -> Result<()> {
    sh(node, &format!("rm {CONF} /opt/cni/bin/multus"))?;
    poll::until("Multus' program and configuration", LIMIT, || {
        sh(node, &format!("test -x /opt/cni/bin/multus && cat {CONF}")).map(drop)
    })
}

/// As Cilium does it with the configurations of others.
fn renamed_by_cilium(cluster: &Cluster, node: &Namespaces) -> Result<()> {
    sh(node, &format!("mv {CONF} {CONF}.cilium_bak"))?;
    poll::until("Multus' configuration", LIMIT, || {
        sh(node, &format!("test -e {CONF} -a ! -e {CONF}.cilium_bak")).map(drop)
    })?;
    poll::until("an Event of the node", LIMIT, || {
        let events = cluster.kubectl(&["get", "events", "--all-namespaces"])?;
        ensure!(events.contains("MultusConfigRenamed") && events.contains("cni.exclusive=false"), "{events}");
        Ok(())
    })
}

/// Upstream's takes Multus away whenever its container stops.
fn restart_changes_nothing(cluster: &Cluster, node: &Namespaces) -> Result<()> {
    let files = || sh(node, &format!("stat -c '%i %Y' {CONF} /opt/cni/bin/multus"));
    let before = files()?;
    let agents = ["daemonset/spiderpool-agent", "--namespace", NAMESPACE];
    cluster.kubectl(&[&["rollout", "restart"], &agents[..]].concat())?;
    cluster.kubectl(&[&["rollout", "status", "--timeout=90s"], &agents[..]].concat())?;
    release::upgrade(cluster, &["spiderpoolAgent.podAnnotations.revision=two"])?;
    let after = files()?;
    ensure!(before == after, "{before} became {after}");
    Ok(())
}

/// What an uninstallation leaves of Multus while pods run: nothing that starts others, and what ends them. CRI-O ends pods
/// by the configuration by which it has started them.
pub(crate) fn check_what_ends_running_pods(cluster: &Cluster, node: &str) -> Result<()> {
    let look = format!("ls {CONF} 2>&1; ls /opt/cni/bin/multus /etc/cni/net.d/multus.d");
    let left = sh(&cluster.node(node)?.namespaces(), &look)?;
    ensure!(left.contains("No such file") && left.contains("spiderpool.kubeconfig"), "{left}");
    let access = cluster.kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name"])?;
    ensure!(!access.contains("spiderpool-multus"), "{access}");
    Ok(())
}

#[test]
fn reference_plugins_are_brought_and_those_of_others_stay() {
    on_cluster("reference_plugins_are_brought", |cluster| {
        cluster.load_image(&images::packed("spiderpool-plugins")?)?;
        let node = cluster.nodes()[0].namespaces();
        sh(
            &node,
            "cp -a /opt/cni/bin /tmp/bin && rm /opt/cni/bin/macvlan && echo theirs > /opt/cni/bin/vlan",
        )?;
        release::upgrade(cluster, &["plugins.installCNI=true"])?;
        let found = sh(&node, "test -x /opt/cni/bin/macvlan && cat /opt/cni/bin/vlan");
        sh(&node, "rm /opt/cni/bin/macvlan")?;
        let again = poll::until("macvlan", LIMIT, || sh(&node, "test -x /opt/cni/bin/macvlan").map(drop));
        // The tests after this one need them.
        release::upgrade(cluster, &[])?;
        sh(&node, "cp -af /tmp/bin/. /opt/cni/bin")?;
        ensure!(found?.trim() == "theirs", "the plugin of somebody else");
        again
    });
}
