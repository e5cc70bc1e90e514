//! Attachments that come, fail and go while the pod lives on.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::ensure;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use spiderpool_core::coordinator::host_end_name;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::kernel_state::KernelState;
use spiderpool_tests::lab::{Lab, lock_lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::process::Process;
use spiderpool_tests::topology::Node;
use spiderpool_tests::{cni, counters, poll, privilege};

/// The agent deletes idle links every five seconds; a busy machine gets more.
const LATER: Duration = Duration::from_secs(20);

fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip(test).then(|| lock_lab(|_| Ok(())).unwrap())
}

fn has_node_link(node: &Node, pod: &Pod) -> bool {
    let host = host_end_name(&pod.attachments[0].1.container).unwrap();
    node.output("ip", &["-o", "link"]).unwrap().contains(host.as_str())
}

/// Hot-unplug of net1: DEL of its network, and the pod lives on.
fn unplug(node: &Node, pod: &Pod) {
    let (network, attachment, result) = &pod.attachments[0];
    network.del(node, attachment, result).unwrap();
}

#[test]
fn the_node_link_of_a_pod_that_lives_on_is_deleted() {
    let Some(mut lab) = lab("the_node_link_of_a_pod_that_lives_on") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let pod = Pod::add(plane, node, &spec("unplugged", DefaultRoute::Net1)).unwrap();
    assert!(has_node_link(node, &pod));
    unplug(node, &pod);
    poll::until("the end of the node link", LATER, || {
        ensure!(!has_node_link(node, &pod), "it is there");
        Ok(())
    })
    .unwrap();
    pod.del(plane, node).unwrap();
    before.wait_for_return(node).unwrap();

    let pod = Pod::add(plane, node, &spec("unplugged-alone", DefaultRoute::Net1)).unwrap();
    lab.agents.remove(0).kill().unwrap();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    unplug(node, &pod);
    assert!(!has_node_link(node, &pod), "without an agent the plugin deletes it at once");
    pod.del(plane, node).unwrap();
    before.wait_for_return(node).unwrap();
    let agent = Agent::start(plane, node).unwrap();
    lab.agents.push(agent);
}

/// Whether the pod's NICs have entries in the map `nics`.
fn are_known(node: &Node, pod: &Pod) -> bool {
    let ids = counters::nic_ids(&pod.namespaces).unwrap();
    let map = format!("{}/nics", counters::PINS);
    ids.len() == 3
        && ids.values().all(|id| {
            let [low, high] = id.to_le_bytes().map(|byte| byte.to_string());
            let arguments = ["-j", "map", "lookup", "pinned", &map, "key", &low, &high, "0", "0"];
            let entry: Value = serde_json::from_str(&node.output("bpftool", &arguments).unwrap()).unwrap();
            entry["formatted"]["value"]["role"].as_u64().unwrap() != 0
        })
}

#[test]
fn a_repeated_add_that_fails_undoes_only_its_own_part() {
    let Some(lab) = lab("a_repeated_add_that_fails") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("again", DefaultRoute::Eth0)).unwrap();
    assert!(are_known(node, &pod));
    let before = KernelState::of(&pod.namespaces).unwrap();

    let (network, attachment, result) = &pod.attachments[0];
    // The subnet's broadcast address is no gateway: the kernel refuses the route, after everything else was done.
    let mut broken = network.plugins[1].clone();
    broken["policyRoutes"] = json!([{"dst": "192.0.2.0/24", "gw": "10.66.255.255"}]);
    let config = network.config(&broken, result).unwrap();
    let error = cni::execute(node, "ADD", attachment, &config).unwrap_err().to_string();
    assert!(error.contains("192.0.2.0/24"), "{error}");
    assert_eq!(KernelState::of(&pod.namespaces).unwrap().changes(&before), Vec::<String>::new());
    assert!(are_known(node, &pod), "the earlier registration stays with the earlier filters");
    pod.del(plane, node).unwrap();
}

/// A mount namespace of the node's that has the pod's network namespace at `path`; the agent does not see that mount.
fn runtime_with_folder_of_its_own(node: &Node, pod: &Pod, path: &Path) -> (Process, Namespaces) {
    let mut command = node.command(Path::new("unshare"));
    command.args(["--mount", "--propagation", "private", "sleep", "infinity"]);
    let runtime = node.start_daemon("runtime", &command).unwrap();
    let comm = format!("/proc/{}/comm", runtime.id());
    poll::until("the runtime's mount namespace", LATER, || {
        ensure!(fs::read_to_string(&comm)? == "sleep\n", "not yet");
        Ok(())
    })
    .unwrap();
    let place = Namespaces::of_process("runtime", runtime.id());
    let mount_netns = || {
        fs::create_dir_all(path.parent().unwrap())?;
        File::create(path)?;
        Ok(mount(Some(&pod.attachments[0].1.netns), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    };
    place.run(mount_netns).unwrap();
    (runtime, place)
}

/// Docker names namespaces `/proc/PID/ns/net`, containerd can keep them below its state folder: "network namespace is
/// gone", and no pod started.
#[test]
fn a_pod_whose_namespace_has_no_path_for_the_agent_is_served_and_repaired_after_a_restart() {
    let Some(mut lab) = lab("a_pod_whose_namespace_has_no_path_for_the_agent") else { return };
    let agent = lab.agents.remove(0);
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let pod = Pod::add(plane, node, &spec("elsewhere", DefaultRoute::Eth0)).unwrap();
    let path = Path::new("/run/elsewhere/netns");
    let (runtime, place) = runtime_with_folder_of_its_own(node, &pod, path);
    let (network, attachment, result) = &pod.attachments[0];
    let elsewhere = cni::Attachment { netns: path.to_owned(), ..attachment.clone() };
    let config = network.config(&network.plugins[1], result).unwrap();
    cni::execute(&place, "ADD", &elsewhere, &config).unwrap();
    assert!(are_known(node, &pod));

    // As the sandbox's own process: after a restart the agent has nothing else to go by.
    let mut command = node.command(Path::new("nsenter"));
    command.arg(format!("--net={}", attachment.netns.display())).args(["sleep", "infinity"]);
    let sandbox = node.start_daemon("sandbox", &command).unwrap();
    agent.kill().unwrap();
    pod.namespaces.output("tc", &["filter", "del", "dev", "net1", "egress"]).unwrap();
    let agent = Agent::start(plane, node).unwrap();
    poll::until("programs on net1", LATER, || {
        let filters = pod.namespaces.output("tc", &["filter", "show", "dev", "net1", "egress"])?;
        ensure!(filters.contains("direct-action"), "{filters}");
        Ok(())
    })
    .unwrap();
    assert!(are_known(node, &pod));
    drop((sandbox, runtime));
    pod.del(plane, node).unwrap();
    lab.agents.push(agent);
}

#[test]
fn a_misspelt_default_route_nic_fails_the_add() {
    let Some(lab) = lab("a_misspelt_default_route_nic") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let before = KernelState::of(node).unwrap();
    let mut misspelt = spec("misspelt", DefaultRoute::Net1);
    misspelt.annotations[0].1 = "net9".into();
    let error = format!("{:#}", Pod::add(plane, node, &misspelt).unwrap_err());
    assert!(error.contains("podDefaultRouteNIC: net9 don't exist in pod"), "{error}");
    before.wait_for_return(node).unwrap();

    // Multus will still make it.
    let mut later = misspelt.clone();
    later.name = "spelt".into();
    later.annotations.push(("k8s.v1.cni.cncf.io/networks".into(), "a, b@net9".into()));
    let pod = Pod::add(plane, node, &later).unwrap();
    pod.del(plane, node).unwrap();
}
