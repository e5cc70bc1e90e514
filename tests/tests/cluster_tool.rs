//! The cluster tool itself: what it starts works, and what it ends is gone.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use spiderpool_core::ip::Family;
use spiderpool_tests::cluster::{Cluster, DefaultCni, Node, Options, ProxyMode};
use spiderpool_tests::dual::Dual;
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::probe::{Probe, Protocol, Server, send};
use spiderpool_tests::process::Process;
use spiderpool_tests::teardown::Snapshot;
use spiderpool_tests::{long_form, poll, privilege, release, tools, topology};

const LIMIT: Duration = Duration::from_mins(1);
/// Names the cluster that the program below starts.
const CHILD: &str = "SPIDERPOOL_TESTS_CLUSTER";

/// One test at a time: each looks at what the whole machine and this process have.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a cluster has in the kernel, so that one can look whether it is gone.
struct KernelObjects {
    name: String,
    namespaces: BTreeSet<String>,
    machine: Snapshot,
}

impl KernelObjects {
    fn of(cluster: &Cluster, machine: Snapshot) -> Self {
        let mut namespaces = BTreeSet::new();
        for machine in cluster.machines() {
            for entry in fs::read_dir(format!("/proc/{}/ns", machine.process())).unwrap().flatten() {
                namespaces.insert(fs::read_link(entry.path()).unwrap().display().to_string());
            }
        }
        // Those that the machines share with this process are not theirs.
        for entry in fs::read_dir("/proc/self/ns").unwrap().flatten() {
            namespaces.remove(&fs::read_link(entry.path()).unwrap().display().to_string());
        }
        assert!(namespaces.len() >= 5 * cluster.machines().len(), "{namespaces:?}");
        Self { name: cluster.options().name.clone(), namespaces, machine }
    }

    /// Nothing of the cluster is left: folder, cgroup, process, namespace, mount, link, BPF object.
    fn check_gone(&self) {
        self.machine.check_nothing_left().unwrap();
        poll::until(&format!("nothing of {}", self.name), LIMIT, || {
            let folder = tools::clusters()?.join(&self.name);
            ensure!(!folder.exists(), "{} is still there", folder.display());
            let groups = groups_of(&self.name)?;
            ensure!(groups.is_empty(), "cgroups are still there: {groups:?}");
            for process in fs::read_dir("/proc")?.flatten() {
                // Most are no processes, and processes end meanwhile.
                for namespace in fs::read_dir(process.path().join("ns")).into_iter().flatten().flatten() {
                    let Ok(target) = fs::read_link(namespace.path()) else { continue };
                    let target = target.display().to_string();
                    ensure!(
                        !self.namespaces.contains(&target),
                        "{target} of process {}",
                        process.file_name().display()
                    );
                }
            }
            let mounts = fs::read_to_string("/proc/self/mountinfo")?;
            ensure!(!mounts.contains(&folder.display().to_string()), "mounts are still there");
            let maps = spiderpool_tests::process::run("bpftool", &["-j", "map", "show"])?;
            ensure!(!maps.contains(&bpf_name(&self.name)), "a BPF map is still there");
            Ok(())
        })
        .unwrap();
    }
}

fn groups_of(cluster: &str) -> Result<Vec<String>> {
    let start = format!("spiderpool-{cluster}-");
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        for group in fs::read_dir(hierarchy.path()).into_iter().flatten().flatten() {
            if group.file_name().to_string_lossy().starts_with(&start) {
                found.push(group.path().display().to_string());
            }
        }
    }
    Ok(found)
}

/// Names of BPF objects are short.
fn bpf_name(cluster: &str) -> String {
    let digits: String = cluster.chars().filter(char::is_ascii_digit).collect();
    format!("t{}", &digits[digits.len().saturating_sub(12)..])
}

/// A map that only a pin in a node's bpffs holds.
fn pin_map(node: &Node, cluster: &str) {
    let name = bpf_name(cluster);
    let pin = format!("/sys/fs/bpf/{name}");
    let command = format!("map create {pin} type hash key 4 value 4 entries 8 name {name}");
    node.namespaces().output("bpftool", &command.split(' ').collect::<Vec<_>>()).unwrap();
}

/// Multus, which the chart brings.
fn install(cluster: &Cluster) {
    release::load_images(cluster).unwrap();
    release::install(cluster, &[]).unwrap();
}

/// A network on eth1 with addresses of the reference plugins: 10.66.N0.0/24, so that nodes do not share any.
fn apply_network(cluster: &Cluster) {
    let ranges = |subnet: &str, start: &str, end: &str| json!([{"subnet": subnet, "rangeStart": start, "rangeEnd": end}]);
    for node in cluster.nodes() {
        let index = node.index;
        let config = json!({
            "cniVersion": "0.3.1", "name": format!("plain-{index}"), "plugins": [{
                "type": "macvlan", "master": "eth1", "mode": "bridge",
                "ipam": {"type": "host-local", "ranges": [
                    ranges("10.66.0.0/16", &format!("10.66.{index}0.1"), &format!("10.66.{index}0.99")),
                    ranges("fd66::/64", &format!("fd66::{index}0:1"), &format!("fd66::{index}0:99")),
                ]},
            }],
        });
        let object = json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": format!("plain-{index}"), "namespace": "default"},
            "spec": {"config": config.to_string()},
        });
        cluster.apply(&object.to_string()).unwrap();
    }
}

/// A server on a node, with net1.
fn start_pod(cluster: &Cluster, node: &Node, name: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": {"app": name},
            "annotations": {"k8s.v1.cni.cncf.io/networks": format!("plain-{}", node.index)},
        },
        "spec": {
            "nodeName": node.name, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "probe", "image": "spiderpool.test/probe:1"}],
        },
    });
    cluster.apply(&pod.to_string()).unwrap();
}

fn wait_for_pod(cluster: &Cluster, name: &str) -> Namespaces {
    let pod = format!("pod/{name}");
    cluster
        .kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=60s"])
        .unwrap_or_else(|error| panic!("{error:#}\n{:?}", cluster.kubectl(&["describe", &pod])));
    cluster.pod_namespaces("default", name).unwrap()
}

fn addresses(namespaces: &Namespaces, nic: &str) -> Dual {
    let text = namespaces.output("ip", &["-o", "address", "show", "dev", nic, "scope", "global"]).unwrap();
    let addresses: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()?.parse().ok())
        .collect();
    Dual::from_addresses(&addresses).unwrap_or_else(|| panic!("{nic}: {text}"))
}

fn answers(from: &Namespaces, to: IpAddr) -> Result<IpAddr> {
    let answer = send(from, Probe { protocol: Protocol::Tcp, to, bound: None })?;
    answer.seen.context("the server does not say whom it saw")
}

/// The first packets may come before ARP, routes or kube-proxy are done.
fn reaches(from: &Namespaces, to: IpAddr) -> IpAddr {
    let what = format!("{} to {to}", from.name);
    poll::until(&what, Duration::from_secs(20), || answers(from, to)).unwrap()
}

fn start(options: &Options) -> Cluster {
    let started = Instant::now();
    let step = |text: &str| println!("[{:5.1} s] {text}", started.elapsed().as_secs_f32());
    Cluster::up_with_progress(options, step).unwrap()
}

/// Two pods on two nodes reach each other by eth0 and by net1, and a Service.
fn check_pods(cluster: &Cluster) {
    install(cluster);
    apply_network(cluster);
    let [first, second] = cluster.nodes() else { panic!("two nodes") };
    start_pod(cluster, first, "first");
    start_pod(cluster, second, "second");
    cluster.kubectl(&["expose", "pod", "second", "--name=web", "--port=8080"]).unwrap();
    let (here, there) = (wait_for_pod(cluster, "first"), wait_for_pod(cluster, "second"));
    for family in Family::ALL {
        for nic in ["eth0", "net1"] {
            let (own, other) = (addresses(&here, nic), addresses(&there, nic));
            assert_eq!(reaches(&here, other.get(family)), own.get(family), "{nic}");
        }
        let net1 = addresses(&there, "net1").get(family);
        reaches(&cluster.client_machine(), net1);
    }
    let service = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    reaches(&here, service.parse().unwrap());
    let log = cluster.kubectl(&["exec", "first", "--", "/usr/bin/testbox", "tcp", &service]).unwrap();
    assert!(log.contains("second"), "{log}");
}

#[test]
fn pods_work_through_changes_of_the_cluster_and_nothing_is_left_after_it() {
    if !privilege::root_or_skip("pods_work_through_changes_of_the_cluster") {
        return;
    }
    let _turn = one_at_a_time();
    let before = Snapshot::take().unwrap();
    let mut cluster = start(&Options { underlays: 2, ..Options::default() });
    let traces = KernelObjects::of(&cluster, before);
    pin_map(&cluster.nodes()[0], &traces.name);
    check_pods(&cluster);
    assert!(
        cluster.nodes()[0]
            .namespaces()
            .output("ip", &["address", "show", "eth2"])
            .unwrap()
            .contains("10.67.1.11")
    );
    found_by_its_name(&cluster);
    default_network_is_like_calico(&cluster);
    proxy_mode_changes(&cluster);
    kubelet_comes_back(&cluster);
    api_server_goes_and_comes(&cluster);
    node_is_power_cycled(&cluster);
    node_is_added(&mut cluster);
    cluster.down().unwrap();
    traces.check_gone();
}

fn found_by_its_name(cluster: &Cluster) {
    let found = Cluster::find(&cluster.options().name).unwrap();
    assert_eq!(found.nodes().len(), cluster.nodes().len());
    assert!(Cluster::names().unwrap().contains(&cluster.options().name));
    let again = Cluster::up(&Options { name: cluster.options().name.clone(), ..Options::default() });
    let error = again.unwrap_err().to_string();
    assert!(error.contains("is up already"), "{error}");
}

/// What leaves the overlay has the node's address, and a foreign route on a host end does not stay.
fn default_network_is_like_calico(cluster: &Cluster) {
    let node = &cluster.nodes()[0];
    let pod = cluster.pod_namespaces("default", "first").unwrap();
    let server = Server::start(&cluster.outside()).unwrap();
    for family in Family::ALL {
        let seen = reaches(&pod, topology::addresses::OUTSIDE.get(family));
        assert_eq!(seen, node.address().get(family), "masqueraded");
    }
    drop(server);
    let own = addresses(&pod, "eth0").v4;
    let route = node.namespaces().output("ip", &["-o", "route", "show", &own.to_string()]).unwrap();
    let host_end = route.split_whitespace().find(|word| word.starts_with("cali")).unwrap().to_owned();
    let foreign = ["route", "add", "10.66.99.99/32", "dev", &host_end];
    node.namespaces().output("ip", &foreign).unwrap();
    poll::until("the foreign route gone", LIMIT, || {
        let routes = node.namespaces().output("ip", &["route", "show", "dev", &host_end])?;
        ensure!(!routes.contains("10.66.99.99"), "{routes}");
        assert!(routes.contains(&own.to_string()), "{routes}");
        Ok(())
    })
    .unwrap();
}

fn proxy_mode_changes(cluster: &Cluster) {
    let service = cluster.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    let node = cluster.nodes()[0].namespaces();
    let tables = |node: &Namespaces| node.output("nft", &["list", "tables"]).unwrap();
    assert!(tables(&node).contains("kube-proxy"), "{}", tables(&node));
    cluster.set_proxy_mode(ProxyMode::Iptables).unwrap();
    let pod = cluster.pod_namespaces("default", "first").unwrap();
    reaches(&pod, service.parse().unwrap());
    let rules = node.output("iptables-save", &["-t", "nat"]).unwrap();
    assert!(rules.contains("KUBE-SERVICES") && !tables(&node).contains("kube-proxy"), "{}", tables(&node));
    cluster.set_proxy_mode(ProxyMode::Nftables).unwrap();
    reaches(&pod, service.parse().unwrap());
}

fn kubelet_comes_back(cluster: &Cluster) {
    let node = &cluster.nodes()[0];
    let kubelet = || node.machine().services().unwrap().into_iter().find(|it| it.name == "kubelet").unwrap();
    let before = kubelet();
    node.kill_kubelet().unwrap();
    poll::until("kubelet restarted", LIMIT, || {
        let now = kubelet();
        ensure!(now.restarts == 1 && now.process.is_some() && now.process != before.process, "{now:?}");
        Ok(())
    })
    .unwrap();
    cluster.wait_for(node).unwrap();
}

fn api_server_goes_and_comes(cluster: &Cluster) {
    cluster.stop_api_server().unwrap();
    assert!(cluster.kubectl(&["get", "nodes", "--request-timeout=2s"]).is_err());
    cluster.start_api_server().unwrap();
    cluster.kubectl(&["get", "nodes"]).unwrap();
}

fn node_is_power_cycled(cluster: &Cluster) {
    let node = &cluster.nodes()[0];
    let second = addresses(&cluster.pod_namespaces("default", "second").unwrap(), "net1");
    node.power_off().unwrap();
    assert!(!node.machine().is_on());
    // Its process id may be another program's soon.
    assert_eq!(Cluster::find(&cluster.options().name).unwrap().nodes()[0].machine().process(), 0);
    cluster.power_on(node).unwrap();
    // The kubelet makes the pod again on the node that it knows.
    poll::until("the pod on the power-cycled node", LIMIT, || {
        let pod = cluster.pod_namespaces("default", "first")?;
        answers(&pod, second.v4.into())
    })
    .unwrap();
    let namespaces = node.namespaces();
    assert!(!namespaces.output("ls", &["/sys/fs/bpf"]).unwrap().contains('t'), "pins of before are there");
}

fn node_is_added(cluster: &mut Cluster) {
    let node = cluster.add_node().unwrap();
    assert_eq!(cluster.nodes().len(), 3);
    apply_network(cluster);
    start_pod(cluster, &node, "third");
    let there = addresses(&wait_for_pod(cluster, "third"), "eth0");
    reaches(&cluster.pod_namespaces("default", "second").unwrap(), there.v4.into());
}

#[test]
fn two_clusters_side_by_side_do_not_meet() {
    if !privilege::root_or_skip("two_clusters_side_by_side")
        || !long_form::asked_for_or_skip("two_clusters_side_by_side_do_not_meet")
    {
        return;
    }
    let _turn = one_at_a_time();
    let before = [Snapshot::take().unwrap(), Snapshot::take().unwrap()];
    let cilium = Options { cni: DefaultCni::CiliumLike, proxy: ProxyMode::Iptables, ..Options::default() };
    let ptp = Options { nodes: 1, cni: DefaultCni::Ptp, ..Options::default() };
    let (cilium, ptp) = (start(&cilium), start(&ptp));
    let [of_cilium, of_ptp] = before;
    let traces = [KernelObjects::of(&cilium, of_cilium), KernelObjects::of(&ptp, of_ptp)];
    assert_eq!((cilium.nodes().len(), ptp.nodes().len()), (2, 1));
    check_pods(&cilium);
    foreign_packets_are_dropped(&cilium);
    assert_eq!(ptp.kubectl(&["get", "pods", "-o", "name"]).unwrap(), "");
    install(&ptp);
    apply_network(&ptp);
    start_pod(&ptp, &ptp.nodes()[0], "lonely");
    let pod = wait_for_pod(&ptp, "lonely");
    let outside = Server::start(&ptp.outside()).unwrap();
    let seen = reaches(&pod, topology::addresses::OUTSIDE.v4.into());
    assert_eq!(seen, IpAddr::from(ptp.nodes()[0].address().v4), "masqueraded");
    drop(outside);
    underlays_are_apart(&cilium, &ptp);
    cilium.down().unwrap();
    ptp.kubectl(&["get", "nodes"]).unwrap();
    ptp.down().unwrap();
    traces.iter().for_each(KernelObjects::check_gone);
}

/// Both underlays have the same subnets, but the second node and its pods are in one of them only.
fn underlays_are_apart(two_nodes: &Cluster, one_node: &Cluster) {
    let second = &two_nodes.nodes()[1];
    let _server = Server::start(&second.namespaces()).unwrap();
    let pod = addresses(&two_nodes.pod_namespaces("default", "second").unwrap(), "net1");
    let lonely = one_node.pod_namespaces("default", "lonely").unwrap();
    let client = one_node.client_machine();
    let strangers = [&lonely, &client, &one_node.nodes()[0].namespaces()];
    for family in Family::ALL {
        // The way that the strangers would take is there.
        reaches(&client, addresses(&lonely, "net1").get(family));
        for to in [second.underlay().get(family), pod.get(family)] {
            reaches(&two_nodes.client_machine(), to);
            for from in strangers {
                let answer = answers(from, to);
                assert!(answer.is_err(), "{} of the other cluster reaches {to}: {answer:?}", from.name);
            }
        }
    }
}

/// What Cilium's programs at the host end do: net1's addresses do not pass there, in either direction.
fn foreign_packets_are_dropped(cluster: &Cluster) {
    let (here, there) = (
        cluster.pod_namespaces("default", "first").unwrap(),
        cluster.pod_namespaces("default", "second").unwrap(),
    );
    let (foreign, to) = (addresses(&here, "net1"), addresses(&there, "eth0"));
    for family in Family::ALL {
        let probe = Probe { protocol: Protocol::Tcp, to: to.get(family), bound: Some(foreign.get(family)) };
        assert!(send(&here, probe).is_err(), "from net1's address by eth0");
    }
}

#[test]
fn cluster_of_a_killed_program_is_removed() {
    if !privilege::root_or_skip("cluster_of_a_killed_program") {
        return;
    }
    let _turn = one_at_a_time();
    let before = Snapshot::take().unwrap();
    let name = format!("killed-{}", std::process::id());
    let log = tools::clusters().unwrap().join("..").join(format!("{name}.log"));
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "program_with_a_cluster", "--nocapture"]).env(CHILD, &name);
    let mut child = Process::start("program with a cluster", &command, &log).unwrap();
    let cluster = poll::until("cluster of another program", LIMIT, || {
        if let Err(ended) = child.check_running() {
            panic!("{ended:#}");
        }
        ensure!(fs::read_to_string(&log)?.contains("cluster is up"), "not up yet");
        Cluster::find(&name)
    })
    .unwrap();
    let traces = KernelObjects::of(&cluster, before);
    child.kill().unwrap();
    traces.check_gone();
    fs::remove_file(&log).unwrap();
}

/// Runs in a child of the test before it, which kills it.
#[test]
fn program_with_a_cluster() {
    let Ok(name) = env::var(CHILD) else { return };
    let _cluster = start(&Options { name, nodes: 1, ..Options::default() });
    println!("cluster is up");
    loop {
        std::thread::park();
    }
}
