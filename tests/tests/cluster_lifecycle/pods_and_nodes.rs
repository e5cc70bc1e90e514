//! What happens to pods, nodes and Spiderpool itself on a real cluster: whatever goes away or restarts, no address is
//! lost or doubled and no established connection is cut.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiderpool_tests::cluster::Cluster;
use spiderpool_tests::connection::Connection;
use spiderpool_tests::counters;
use spiderpool_tests::images;
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::poll;
use spiderpool_tests::release::{self, NAMESPACE, NETWORK};
use spiderpool_tests::workload::{Deployment, RunningPod, check_addresses};

use crate::multus;
use crate::shared::on_cluster;

/// After a pod is gone its addresses must be free within this.
const FREED_LIMIT: Duration = Duration::from_secs(30);
/// For what kubelets and controllers do in their own time.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);
/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(30);

fn lifecycle(name: &str, test: impl FnOnce(&mut Cluster) -> Result<()>) {
    on_cluster(name, test);
}

/// The objects are exactly what these pods have, at the latest when the time for freeing is over.
pub(crate) fn settled(cluster: &Cluster, pods: &[RunningPod]) -> Result<()> {
    poll::until("the addresses of running pods and no others", FREED_LIMIT, || check_addresses(cluster, pods))
}

#[test]
fn scaling_up_and_down_holds_exactly_what_runs() {
    lifecycle("scaling_up_and_down_holds_exactly_what_runs", |cluster| {
        let one = Deployment::underlay("scaled", NETWORK);
        let first = one.start(cluster)?;
        settled(cluster, &first)?;
        let many = one.clone().times(20);
        let pods = many.start(cluster)?;
        let nodes: BTreeSet<_> = pods.iter().map(|pod| pod.node.as_str()).collect();
        ensure!(nodes.len() == 2, "all pods are on {nodes:?}");
        settled(cluster, &pods)?;
        let left = one.start(cluster)?;
        settled(cluster, &left)?;
        one.delete(cluster)?;
        settled(cluster, &[])
    });
}

#[test]
fn a_rolling_update_replaces_pods_and_addresses() {
    lifecycle("a_rolling_update_replaces_pods_and_addresses", |cluster| {
        let mut rolled = Deployment::underlay("rolled", NETWORK).times(4);
        let before = rolled.start(cluster)?;
        rolled.annotations.push(("example.com/revision".into(), "2".into()));
        cluster.apply(&rolled.manifest().to_string())?;
        cluster.kubectl(&["rollout", "status", "deployment/rolled", "--timeout=60s"])?;
        let after = rolled.wait_running(cluster)?;
        ensure!(after.iter().all(|pod| !before.contains(pod)), "a pod of the old revision is left");
        settled(cluster, &after)?;
        rolled.delete(cluster)?;
        settled(cluster, &[])
    });
}

/// Names and the addresses of the NICs behind the first.
fn fixed(pods: &[RunningPod]) -> BTreeSet<(String, String)> {
    pods.iter().map(|pod| (pod.name.clone(), format!("{:?}", pod.underlay))).collect()
}

/// Upstream's cases E00003, L00008 and G00003 of a StatefulSet.
#[test]
fn the_pods_of_a_stateful_set_keep_their_addresses_until_it_is_scaled_down() {
    lifecycle("the_pods_of_a_stateful_set_keep_their_addresses_until_it_is_scaled_down", |cluster| {
        let set = Deployment::underlay("ordered", NETWORK).stateful().times(3);
        let before = set.start(cluster)?;
        settled(cluster, &before)?;
        cluster.kubectl(&["rollout", "restart", &set.reference()])?;
        cluster.kubectl(&["rollout", "status", &set.reference(), "--timeout=120s"])?;
        let after = set.wait_running(cluster)?;
        ensure!(fixed(&after) == fixed(&before), "{after:?} are not as {before:?}");
        ensure!(
            after.iter().all(|pod| before.iter().all(|old| old.uid != pod.uid)),
            "a pod was not replaced"
        );
        settled(cluster, &after)?;
        // To the other node.
        let moved = after.iter().find(|pod| pod.name == "ordered-0").context("ordered-0")?;
        cluster.kubectl(&["cordon", &moved.node])?;
        cluster.kubectl(&["delete", "pod", &moved.name, "--wait=true"])?;
        let there = set.wait_running(cluster);
        cluster.kubectl(&["uncordon", &moved.node])?;
        let there = there?;
        ensure!(there.iter().any(|pod| pod.name == moved.name && pod.node != moved.node), "{there:?}");
        ensure!(fixed(&there) == fixed(&before), "{there:?} are not as {before:?}");
        settled(cluster, &there)?;
        // What does not come again keeps nothing.
        let left = set.clone().times(1).start(cluster)?;
        settled(cluster, &left)?;
        let more = set.start(cluster)?;
        settled(cluster, &more)?;
        set.delete(cluster)?;
        settled(cluster, &[])
    });
}

#[test]
fn a_killed_kubelet_loses_no_address() {
    lifecycle("a_killed_kubelet_loses_no_address", |cluster| {
        let pair = Deployment::underlay("kept", NETWORK).times(4);
        let before = pair.start(cluster)?;
        let name = before[0].node.clone();
        cluster.node(&name)?.kill_kubelet()?;
        // A pod that is made by the new kubelet, while the old ones stay what they are.
        let late = Deployment::underlay("late", NETWORK).on(&name).start(cluster)?;
        let mut after = pair.wait_running(cluster)?;
        let by_name = |a: &RunningPod, b: &RunningPod| a.name.cmp(&b.name);
        after.sort_by(by_name);
        let mut expected = before;
        expected.sort_by(by_name);
        ensure!(after == expected, "the pods changed from {expected:?} to {after:?}");
        after.extend(late);
        settled(cluster, &after)
    });
}

#[test]
fn a_power_cycled_node_is_as_new() {
    lifecycle("a_power_cycled_node_is_as_new", |cluster| {
        let names: Vec<String> = cluster.nodes().iter().map(|node| node.name.clone()).collect();
        let [kept, cycled] = names.as_slice() else { anyhow::bail!("two nodes are needed") };
        let here = Deployment::underlay("here", NETWORK).on(kept);
        let there = Deployment::underlay("there", NETWORK).on(cycled).times(3);
        let (here_pods, before) = (here.start(cluster)?, there.start(cluster)?);
        cluster.node(cycled)?.power_off()?;
        cluster.node(cycled)?.power_on()?;
        // The pod objects live on; kubelet makes new sandboxes for them, which get the addresses of the old ones.
        let expected: Vec<_> = before.iter().map(|pod| (&pod.uid, &pod.underlay)).collect();
        let after = poll::until("the same pods with the same addresses", LIMIT, || {
            let after = there.wait_running(cluster)?;
            for pod in &after {
                ensure!(expected.contains(&(&pod.uid, &pod.underlay)), "{pod:?} is none of {expected:?}");
                ensure!(
                    before.iter().all(|old| old.eth0 != pod.eth0),
                    "{} is the old sandbox still",
                    pod.name
                );
            }
            Ok(after)
        })?;
        let namespaces = cluster.node(cycled)?.namespaces();
        poll::until("programs on every NIC", LIMIT, || {
            for pod in &after {
                let nics = counters::nic_ids(&cluster.pod_namespaces("default", &pod.name)?)?;
                ensure!(nics.len() == 3, "{} has programs on {nics:?}", pod.name);
            }
            Ok(())
        })?;
        let [whole, found] = [pins(cluster, kept)?, pins(cluster, cycled)?];
        ensure!(!whole.is_empty() && found == whole, "{cycled} has the pins {found:?}, {kept} {whole:?}");
        // One route per address to its pod, as on a new node.
        for family in ["-4", "-6"] {
            let routes = namespaces.output("ip", &[family, "route", "show", "proto", "0x53"])?;
            ensure!(routes.lines().count() == after.len(), "{cycled} has the routes\n{routes}");
        }
        for pod in &after {
            let net1: IpAddr = pod.net1()?.v4.into();
            let talk =
                Connection::start(&namespaces, &cluster.pod_namespaces("default", &pod.name)?, net1, 9090)?;
            talk.finish()?;
        }
        settled(cluster, &[here_pods, after].concat())
    });
}

/// What Spiderpool has pinned on a node.
fn pins(cluster: &Cluster, node: &str) -> Result<BTreeSet<String>> {
    let found = cluster.node(node)?.namespaces().output("find", &["/sys/fs/bpf/spiderpool"])?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// Connections over every way that the programs steer: node to net1, pod to pod's eth0, and net1 to net1.
fn connections(cluster: &Cluster, pods: &[RunningPod]) -> Result<Vec<Connection>> {
    let namespaces = |pod: &RunningPod| cluster.pod_namespaces("default", &pod.name);
    let [one, other] = pods else { anyhow::bail!("two pods are needed") };
    let own_node = cluster.node(&one.node)?.namespaces();
    let (one_namespaces, other_namespaces) = (namespaces(one)?, namespaces(other)?);
    Ok(vec![
        Connection::start(&own_node, &one_namespaces, one.net1()?.v4.into(), 9001)?,
        Connection::start(&own_node, &one_namespaces, one.net1()?.v6.into(), 9002)?,
        Connection::start(&one_namespaces, &other_namespaces, other.eth0.v4.into(), 9003)?,
        Connection::start(&one_namespaces, &other_namespaces, other.eth0.v6.into(), 9004)?,
        Connection::start(&one_namespaces, &other_namespaces, other.net1()?.v4.into(), 9005)?,
    ])
}

/// The agent's image under another tag, on every node; its full name.
fn load_agent(cluster: &Cluster, tag: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("agent.tar");
    let image = images::agent(tag)?;
    image.write(&archive)?;
    cluster.load_image(&archive)?;
    Ok(image.name().to_owned())
}

/// The image of each agent's container that runs and is ready, as its node calls it.
fn images_of_agents(cluster: &Cluster) -> Result<Vec<String>> {
    let selector = "app.kubernetes.io/component=spiderpool-agent";
    let ready = r"jsonpath={.items[*].status.containerStatuses[?(@.ready==true)].image}";
    let images =
        cluster.kubectl(&["get", "pods", "--namespace", NAMESPACE, "--selector", selector, "-o", ready])?;
    Ok(images.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn restart_and_upgrade_of_the_agents_cut_no_connection() {
    lifecycle("restart_and_upgrade_of_the_agents_cut_no_connection", |cluster| {
        let pods: Vec<RunningPod> = ["node1", "node2"]
            .iter()
            .map(|name| Deployment::underlay(&format!("talker-{name}"), NETWORK).on(name).start(cluster))
            .collect::<Result<Vec<_>>>()?
            .concat();
        let talks = connections(cluster, &pods)?;
        let agents = ["rollout", "restart", "daemonset/spiderpool-agent", "--namespace", NAMESPACE];
        cluster.kubectl(&agents)?;
        let done =
            ["rollout", "status", "daemonset/spiderpool-agent", "--namespace", NAMESPACE, "--timeout=90s"];
        cluster.kubectl(&done)?;
        let tag = format!("{}-second", images::TAG);
        let image = load_agent(cluster, &tag)?;
        release::upgrade(cluster, &[&format!("spiderpoolAgent.image.tag={tag}")])?;
        cluster.kubectl(&done)?;
        poll::until("agents of the new image alone", LIMIT, || {
            let running = images_of_agents(cluster)?;
            ensure!(running == [&*image, &*image], "the agents run {running:?}");
            Ok(())
        })?;
        for talk in talks {
            talk.finish()?;
        }
        // The programs are those of the new agents, and they still steer.
        for talk in connections(cluster, &pods)? {
            talk.finish()?;
        }
        settled(cluster, &pods)
    });
}

#[test]
fn an_outage_of_the_api_server_is_survived() {
    lifecycle("an_outage_of_the_api_server_is_survived", |cluster| {
        let pods: Vec<RunningPod> = ["node1", "node2"]
            .iter()
            .map(|name| Deployment::underlay(&format!("outlives-{name}"), NETWORK).on(name).start(cluster))
            .collect::<Result<Vec<_>>>()?
            .concat();
        let talks = connections(cluster, &pods)?;
        cluster.stop_api_server()?;
        thread::sleep(OUTAGE);
        cluster.start_api_server()?;
        for talk in talks {
            talk.finish()?;
        }
        let late = Deployment::underlay("after-outage", NETWORK).times(2).start(cluster)?;
        settled(cluster, &[pods, late].concat())
    });
}

#[test]
fn pods_come_and_go_without_a_controller() {
    lifecycle("pods_come_and_go_without_a_controller", |cluster| {
        let scale = |replicas: u8| {
            let replicas = format!("--replicas={replicas}");
            let name = "deployment/spiderpool-controller";
            cluster.kubectl(&["scale", name, &replicas, "--namespace", NAMESPACE])
        };
        scale(0)?;
        poll::until("no controller", LIMIT, || {
            let pods = cluster.kubectl(&["get", "pods", "--namespace", NAMESPACE, "-o", "name"])?;
            ensure!(!pods.contains("controller"), "{pods}");
            Ok(())
        })?;
        let first = Deployment::underlay("uncontrolled", NETWORK).times(4);
        settled(cluster, &first.start(cluster)?)?;
        first.delete(cluster)?;
        settled(cluster, &[])?;
        let second = Deployment::underlay("uncontrolled-too", NETWORK).times(3);
        let pods = second.start(cluster)?;
        scale(1)?;
        poll::until("the counts of the pool", LIMIT, || {
            let pool = cluster.kubectl(&["get", "spiderippool", "default-v4-ippool", "-o", "json"])?;
            let pool: Value = serde_json::from_str(&pool)?;
            ensure!(pool["status"]["allocatedIPCount"] == 3, "{}", pool["status"]);
            ensure!(pool["status"]["totalIPCount"] == 200, "{}", pool["status"]);
            Ok(())
        })?;
        settled(cluster, &pods)
    });
}

/// A pool with one address.
fn tiny_pool(cluster: &Cluster) -> Result<()> {
    let pool = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": {"name": "tiny"},
        "spec": {"subnet": "10.66.0.0/16", "ips": ["10.66.99.1"], "gateway": "10.66.0.1"},
    });
    cluster.apply(&pool.to_string()).map(drop)
}

#[test]
fn describe_says_why_a_pod_gets_no_address() {
    lifecycle("describe_says_why_a_pod_gets_no_address", |cluster| {
        tiny_pool(cluster)?;
        let wanting = |name: &str, pool: &str| {
            let mut deployment = Deployment::underlay(name, NETWORK);
            let pools = json!({"ipv4": [pool], "ipv6": ["default-v6-ippool"]}).to_string();
            deployment.annotations.push(("ipam.spidernet.io/ippool".into(), pools));
            deployment
        };
        let (first, second) = (wanting("lucky", "tiny"), wanting("late", "tiny"));
        first.start(cluster)?;
        let missing = wanting("lost", "no-such-pool");
        for (deployment, words) in
            [(&second, ["tiny", "all IP addresses used out"]), (&missing, ["no-such-pool", "does not exist"])]
        {
            cluster.apply(&deployment.manifest().to_string())?;
            let selector = format!("app={}", deployment.name);
            poll::until(&format!("the reason for {}", deployment.name), LIMIT, || {
                let described = cluster.kubectl(&["describe", "pods", "--selector", &selector])?;
                let event = described.lines().find(|line| line.contains("FailedCreatePodSandBox"));
                let event = event.context("no event yet")?;
                for word in words {
                    ensure!(event.contains(word), "{word} is not in: {event}");
                }
                Ok(())
            })?;
        }
        for deployment in [first, second, missing] {
            deployment.delete(cluster)?;
        }
        cluster.kubectl(&["delete", "spiderippool", "tiny"])?;
        settled(cluster, &[])
    });
}

#[test]
fn uninstall_with_running_pods_and_install_again() {
    lifecycle("uninstall_with_running_pods_and_install_again", |cluster| {
        let running = Deployment::underlay("stays", NETWORK).times(4);
        let goes = Deployment::underlay("goes", NETWORK).on("node1");
        let pods = running.start(cluster)?;
        goes.start(cluster)?;
        release::uninstall(cluster)?;
        multus::check_what_ends_running_pods(cluster, "node1")?;
        // DEL of a pod works without agent, API, controller and Multus' configuration.
        goes.delete(cluster)?;
        ensure!(running.wait_running(cluster)?.len() == pods.len(), "a pod is gone");
        release::install(cluster, &[])?;
        // The network went with its SpiderMultusConfig, as the pools did.
        release::apply_network(cluster)?;
        let late = Deployment::underlay("comes", NETWORK).times(4).start(cluster)?;
        settled(cluster, &[pods, late].concat())
    });
}

#[test]
fn uninstall_leaves_nothing() {
    lifecycle("uninstall_leaves_nothing", |cluster| {
        release::uninstall(cluster)?;
        let left = what_is_left(cluster);
        // First of all: the tests after this one need it.
        release::install(cluster, &[])?;
        release::apply_network(cluster)?;
        let left = left?;
        ensure!(left.is_empty(), "left: {left:#?}");
        Ok(())
    });
}

/// Everything of Spiderpool on nodes without pods, and in the API.
fn what_is_left(cluster: &Cluster) -> Result<Vec<String>> {
    // find fails on a folder that is not there, which is as it should be; what it finds it prints all the same.
    const FIND: &str = "find /sys/fs/bpf /run/spidernet /var/log/spidernet /opt/cni/bin /etc/cni/net.d \
        -name '*spider*' -o -name 'coordinator*' -o -name '*multus*' -o -name veth; true";
    const CLUSTER_WIDE: &str =
        "crds,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations";
    const NAMESPACED: &str = "all,configmaps,secrets,serviceaccounts,leases";
    // The namespace with the name: in our own, all of them are ours.
    const NAMES: &str =
        r#"jsonpath={range .items[*]}{.kind} {.metadata.namespace}/{.metadata.name}{"\n"}{end}"#;
    const KUBERNETES_OWN: [&str; 2] = ["configmap/kube-root-ca.crt", "serviceaccount/default"];
    let mut left = Vec::new();
    for node in cluster.nodes() {
        let namespaces = node.namespaces();
        let routes = ["route", "show", "table", "all", "proto", "0x53"];
        for found in [namespaces.output("sh", &["-c", FIND])?, namespaces.output("ip", &routes)?] {
            left.extend(found.lines().map(|line| format!("{}: {line}", node.name)));
        }
        left.extend(node_links(&namespaces)?.into_iter().map(|link| format!("{}: {link}", node.name)));
    }
    let rights = ["get", "roles,rolebindings", "--all-namespaces", "-o", NAMES];
    for objects in [cluster.kubectl(&["get", CLUSTER_WIDE, "-o", "name"])?, cluster.kubectl(&rights)?] {
        left.extend(objects.lines().filter(|name| name.contains("spider")).map(str::to_owned));
    }
    let objects = cluster.kubectl(&["get", NAMESPACED, "--namespace", NAMESPACE, "-o", "name"])?;
    left.extend(objects.lines().filter(|name| !KUBERNETES_OWN.contains(name)).map(str::to_owned));
    Ok(left)
}

/// The host ends of node links, known by their names: `sp` and 13 hexadecimal digits.
fn node_links(node: &Namespaces) -> Result<Vec<String>> {
    let links: Value = serde_json::from_str(&node.output("ip", &["-j", "link"])?)?;
    let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
    let is_host_end = |name: &&str| {
        let digits = name.strip_prefix("sp").unwrap_or_default();
        digits.len() == 13 && digits.chars().all(|digit| digit.is_ascii_hexdigit())
    };
    Ok(names.filter(is_host_end).map(str::to_owned).collect())
}
