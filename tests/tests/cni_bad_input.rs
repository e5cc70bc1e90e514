//! Bad input and a broken environment: each gives one clear CNI error (code, message, details), exit code 1, and
//! leaves nothing behind but addresses that the pod keeps by design.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::sync::MutexGuard;
use std::time::Duration;

use serde_json::{Value, json};
use spiderpool_tests::agent::Agent;
use spiderpool_tests::cni::{self, Attachment, Failure, Network};
use spiderpool_tests::kernel_state::KernelState;
use spiderpool_tests::lab::{Lab, lock_lab, macvlan, pool, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::topology::Node;
use spiderpool_tests::{poll, privilege, process};

fn lab() -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip("bad input").then(|| lock_lab(add_pools).unwrap())
}

/// Pools that give no address, each for a reason of its own.
fn add_pools(lab: &Lab) -> anyhow::Result<()> {
    let mut disabled = pool("disabled-v4", &["10.66.20.1-10.66.20.9"]);
    disabled["spec"]["disable"] = json!(true);
    let mut elsewhere = pool("elsewhere-v4", &["10.66.21.1-10.66.21.9"]);
    elsewhere["spec"]["nodeName"] = json!(["another-node"]);
    let items = [disabled, elsewhere, pool("empty-v4", &[])];
    lab.topology.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())?;
    Ok(())
}

/// A pod with eth0 only, for plugins to be run on.
fn plain_pod(lab: &Lab, name: &str) -> Pod {
    let spec = PodSpec { name: name.into(), ..PodSpec::default() };
    Pod::add(&lab.topology.plane, &lab.topology.nodes[0], &spec).unwrap()
}

fn failure(error: &anyhow::Error) -> Failure {
    error.downcast_ref::<Failure>().unwrap_or_else(|| panic!("not a plugin's failure: {error:#}")).clone()
}

/// The plugin's ADD must fail with `code`, name `names` in its error, and change nothing on the node and in the pod.
fn refused(
    node: &Node,
    pod: &Pod,
    plugin: &str,
    attachment: &Attachment,
    config: &[u8],
    code: u64,
    names: &str,
) {
    let add =
        || cni::execute_type(node, plugin, "ADD", attachment, config).expect_err("the plugin succeeded");
    check(&failure(&changes_nothing(node, pod, add)), code, names);
}

/// Calls `act`, after which node and pod must be as before.
fn changes_nothing<T>(node: &Node, pod: &Pod, act: impl FnOnce() -> T) -> T {
    let look = || (KernelState::of(node).unwrap(), KernelState::of(&pod.namespaces).unwrap());
    let before = look();
    let outcome = act();
    let after = look();
    assert_eq!(after.0.changes(&before.0), Vec::<String>::new(), "on the node");
    assert_eq!(after.1.changes(&before.1), Vec::<String>::new(), "in the pod");
    outcome
}

fn check(failed: &Failure, code: u64, names: &str) {
    assert_eq!(failed.exit, Some(1), "{failed}");
    assert_eq!(failed.code(), code, "{failed}");
    let error = failed.error.as_ref().unwrap_or_else(|| panic!("no error object: {failed}"));
    // The reference plugins print what an IPAM plugin said without its version.
    let keys =
        if failed.plugin == "macvlan" { &["msg", "details"][..] } else { &["cniVersion", "msg", "details"] };
    for key in keys {
        assert!(error[key].as_str().is_some_and(|text| !text.is_empty()), "{key} is missing: {failed}");
        // It is one line of the pod's events.
        let is_one_line = |text: &str| !text.contains(char::is_control);
        assert!(error[key].as_str().is_some_and(is_one_line), "{key}: {failed}");
    }
    assert!(failed.message().contains(names), "{names:?} is not named: {failed}");
}

/// A plugin's configuration with a change, with the result of a main plugin for the one that needs it.
fn config(network: &Network, plugin: usize, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let previous = json!({
        "cniVersion": network.version,
        "interfaces": [{"name": "net1", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/any"}],
        "ips": [{"version": "4", "interface": 0, "address": "10.66.30.1/16"}],
    });
    let previous = if plugin == 0 { Value::Null } else { previous };
    let config = network.config(&network.plugins[plugin], &previous).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    change(&mut config);
    serde_json::to_vec(&config).unwrap()
}

#[test]
fn malformed_configuration() {
    let Some(lab) = lab() else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = plain_pod(&lab, "malformed");
    let (attachment, network) = (pod.attachment("net1"), macvlan("underlay-v4", "underlay-v6"));
    for plugin in ["spiderpool", "coordinator"] {
        refused(node, &pod, plugin, &attachment, b"{\"cniVersion\": \"1.0.0\", \"name\":", 6, "EOF");
        let version = config(&network, 1, |config| config["cniVersion"] = json!("9.9.9"));
        refused(node, &pod, plugin, &attachment, &version, 1, "9.9.9");
    }
    let wrong_type = config(&network, 0, |config| config["ipam"]["clean_gateway"] = json!("yes"));
    refused(node, &pod, "spiderpool", &attachment, &wrong_type, 6, "yes");
    let wrong_type = config(&network, 1, |config| config["hijackCIDR"] = json!("10.0.0.0/8"));
    refused(node, &pod, "coordinator", &attachment, &wrong_type, 6, "10.0.0.0/8");
    let alone = network.config(&network.plugins[1], &Value::Null).unwrap();
    refused(node, &pod, "coordinator", &attachment, &alone, 7, "prevResult");
    let wrong_value = config(&network, 1, |config| config["mode"] = json!("sideways"));
    refused(node, &pod, "coordinator", &attachment, &wrong_value, 7, "sideways");
    pod.del(plane, node).unwrap();
}

#[test]
fn pools_that_cannot_give_an_address() {
    let Some(lab) = lab() else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = plain_pod(&lab, "no-address");
    let attachment = pod.attachment("net1");
    for (name, remedy) in [
        ("missing-v4", "create it or name another one"),
        ("disabled-v4", "set its spec.disable to false"),
        ("elsewhere-v4", "its spec.nodeName does not list"),
        ("empty-v4", "add some to its spec.ips"),
    ] {
        let network = macvlan(name, "underlay-v6");
        let config = network.config(&network.plugins[0], &Value::Null).unwrap();
        refused(node, &pod, "spiderpool", &attachment, &config, 100, name);
        refused(node, &pod, "spiderpool", &attachment, &config, 100, remedy);
    }
    pod.del(plane, node).unwrap();
}

#[test]
fn an_annotation_that_does_not_parse() {
    let Some(lab) = lab() else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let mut spec = spec("annotated", DefaultRoute::Eth0);
    spec.annotations.push(("ipam.spidernet.io/ippool".into(), "{\"ipv4\": [".into()));
    let failed = Pod::add(plane, node, &spec).expect_err("the chain succeeded");
    check(&failure(&failed), 100, "ipam.spidernet.io/ippool");
    before.wait_for_return(node).unwrap();
}

#[test]
fn a_namespace_that_is_gone() {
    let Some(lab) = lab() else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = plain_pod(&lab, "no-namespace");
    let attachment = Attachment { netns: "/run/netns/gone".into(), ..pod.attachment("net1") };
    let network = macvlan("underlay-v4", "underlay-v6");
    for (plugin, name) in ["spiderpool", "coordinator"].iter().enumerate() {
        let config = config(&network, plugin, |_| ());
        refused(node, &pod, name, &attachment, &config, 4, "/run/netns/gone");
    }
    pod.del(plane, node).unwrap();
}

/// The kernel would drop what the programs let in by another NIC. A pod that has it, from an older version or by its own
/// doing, goes on: it is checked and deleted.
#[test]
fn a_strict_reverse_path_filter_of_new_pods() {
    let Some(lab) = lab() else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let strict = |config: &[u8], dataplane: Option<&str>| {
        let mut config: Value = serde_json::from_slice(config).unwrap();
        config["podRPFilter"] = json!(1);
        if let Some(dataplane) = dataplane {
            config["dataplane"] = json!(dataplane);
        }
        serde_json::to_vec(&config).unwrap()
    };
    before_coordinator(&lab, "strict", |pod, attachment, config| {
        let config = strict(config, None);
        refused(node, pod, "coordinator", attachment, &config, 7, "podRPFilter 1 is strict");
    });
    before_coordinator(&lab, "strict-with-rules", |_, attachment, config| {
        let config = strict(config, Some("policy"));
        cni::execute_type(node, "coordinator", "ADD", attachment, &config).unwrap();
        cni::execute_type(node, "coordinator", "CHECK", attachment, &config).unwrap();
    });
    let mut spec = spec("strict-before", DefaultRoute::Net1);
    spec.networks[0].version = "1.0.0".into();
    let mut pod = Pod::add(plane, node, &spec).unwrap();
    let settings =
        ["all", "default", "eth0", "net1", "sp0"].map(|nic| format!("ipv4/conf/{nic}/rp_filter=1"));
    pod.namespaces.sysctl(&settings.each_ref().map(String::as_str)).unwrap();
    let (network, attachment, result) = &mut pod.attachments[0];
    network.plugins[1]["podRPFilter"] = json!(1);
    network.check(node, attachment, result).unwrap();
    pod.del(plane, node).unwrap();
}

/// macvlan and IPAM worked, then the coordinator fails: it undoes its own steps, the runtime's DEL does the rest.
fn coordinator_refused(lab: &Lab, name: &str, code: u64, names: &str) {
    let node = &lab.topology.nodes[0];
    before_coordinator(lab, name, |pod, attachment, config| {
        refused(node, pod, "coordinator", attachment, config, code, names);
    });
}

/// Calls `test` with a pod that has a net1 without coordinator, and with the coordinator's configuration; nothing may be left
/// after DEL.
fn before_coordinator(lab: &Lab, name: &str, test: impl FnOnce(&Pod, &Attachment, &[u8])) {
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let pod = plain_pod(lab, name);
    let (attachment, network) = (pod.attachment("net1"), macvlan("underlay-v4", "underlay-v6"));
    let alone = Network { plugins: network.plugins[..1].to_vec(), ..network.clone() };
    let result = alone.add(node, &attachment).unwrap();
    let config = network.config(&network.plugins[1], &result).unwrap();
    test(&pod, &attachment, &config);
    network.del(node, &attachment, &result).unwrap();
    pod.del(plane, node).unwrap();
    before.wait_for_return(node).unwrap();
}

#[test]
fn programs_are_missing() {
    let Some(lab) = lab() else { return };
    let node = &lab.topology.nodes[0];
    let shell = |script: &str| node.output("sh", &["-c", script]).unwrap();
    before_coordinator(&lab, "no-programs", |pod, attachment, config| {
        let execute = |command| cni::execute_type(node, "coordinator", command, attachment, config);
        let failed = changes_nothing(node, pod, || {
            // The agent pins what it misses again within seconds.
            let failed = poll::until("an ADD without programs", Duration::from_secs(30), || {
                shell("for p in /sys/fs/bpf/spiderpool/v1/*gress; do mv -f $p /sys/fs/bpf/; done");
                let Err(failed) = execute("ADD") else {
                    execute("DEL")?;
                    anyhow::bail!("they are pinned again");
                };
                Ok(failed)
            });
            shell("for p in /sys/fs/bpf/*gress; do mv -f $p /sys/fs/bpf/spiderpool/v1/; done");
            failed.unwrap()
        });
        check(&failure(&failed), 105, "spiderpool-agent");
    });
}

#[test]
fn bpffs_is_not_mounted() {
    let Some(lab) = lab() else { return };
    let node = &lab.topology.nodes[0];
    node.output("mount", &["-t", "tmpfs", "tmpfs", "/sys/fs/bpf"]).unwrap();
    coordinator_refused(&lab, "no-bpffs", 105, "mount -t bpf");
    node.output("umount", &["/sys/fs/bpf"]).unwrap();
}

#[test]
fn the_agent_is_down() {
    let Some(mut lab) = lab() else { return };
    lab.agents.remove(0).stop().unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = plain_pod(&lab, "no-agent");
    let (attachment, network) = (pod.attachment("net1"), macvlan("underlay-v4", "underlay-v6"));
    for (plugin, name) in ["spiderpool", "coordinator"].iter().enumerate() {
        let config = config(&network, plugin, |_| ());
        refused(node, &pod, name, &attachment, &config, 11, "spiderpool.sock");
    }
    pod.del(plane, node).unwrap();
    let agent = Agent::start(plane, node).unwrap();
    lab.agents.push(agent);
}

#[test]
fn the_api_server_is_down() {
    let Some(mut lab) = lab() else { return };
    let pod = plain_pod(&lab, "no-api-server");
    let (attachment, network) = (pod.attachment("net1"), macvlan("underlay-v4", "underlay-v6"));
    let config = network.config(&network.plugins[0], &Value::Null).unwrap();
    lab.topology.plane.kill_api_server().unwrap();
    refused(&lab.topology.nodes[0], &pod, "spiderpool", &attachment, &config, 11, "API server unreachable");
    lab.topology.plane.start_api_server().unwrap();
    let node = &lab.topology.nodes[0];
    let again = cni::execute_type(node, "spiderpool", "ADD", &attachment, &config);
    again.expect("the API server is back");
    pod.del(&lab.topology.plane, node).unwrap();
}

/// What the plugins print is for the runtime; what people need is also in their log files.
#[test]
fn errors_are_logged() {
    let Some(lab) = lab() else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = plain_pod(&lab, "logged");
    let network = macvlan("nowhere-v4", "underlay-v6");
    let config = network.config(&network.plugins[0], &Value::Null).unwrap();
    refused(node, &pod, "spiderpool", &pod.attachment("net1"), &config, 100, "nowhere-v4");
    let log = node.run(|| process::run("cat", &["/var/log/spidernet/spiderpool.log"])).unwrap();
    assert!(log.lines().any(|line| line.contains("nowhere-v4") && line.contains("logged")), "{log}");
    pod.del(plane, node).unwrap();
}
