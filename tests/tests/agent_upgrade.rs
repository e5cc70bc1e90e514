//! The agent is killed, upgraded, rolled back, and its BPF file system taken away, while pods talk by every way: no datagram
//! of an established flow is lost, no connection is cut, and no short connection fails.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use spiderpool_core::ip::Family;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::connection::Connection;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::counters::{self, PINS};
use spiderpool_tests::datagrams::Datagrams;
use spiderpool_tests::lab::{Lab, spec, underlay_spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::Pod;
use spiderpool_tests::probe::{Answer, Probe, Protocol, Server, send};
use spiderpool_tests::topology::Node;
use spiderpool_tests::{poll, privilege, service, tools};

const LIMIT: Duration = Duration::from_secs(20);

/// Asks twice; on an emulated machine more often, as a probe waits no longer there than elsewhere.
fn patiently(from: &Namespaces, probe: Probe) -> Result<Answer> {
    let mut answer = send(from, probe);
    for _ in 1..2 * poll::factor() {
        if answer.is_ok() {
            break;
        }
        answer = send(from, probe);
    }
    answer
}

/// One way through the programs.
struct Way {
    name: String,
    from: Namespaces,
    bound: Option<IpAddr>,
    to: IpAddr,
    server: Namespaces,
}

/// All ways in use, for as long as it lives.
struct Traffic {
    datagrams: Vec<(String, Datagrams)>,
    connections: Vec<(String, Connection)>,
    over: Arc<AtomicBool>,
    short: Vec<(String, JoinHandle<Result<u32>>)>,
}

impl Traffic {
    fn start(ways: &[Way]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut traffic =
            Self { datagrams: vec![], connections: vec![], over: Arc::clone(&over), short: vec![] };
        for (number, way) in (0_u16..).zip(ways) {
            let datagrams = Datagrams::start(&way.from, way.bound, way.to);
            traffic
                .datagrams
                .push((way.name.clone(), datagrams.unwrap_or_else(|e| panic!("{}: {e:#}", way.name))));
            // A ClusterIP leads to the servers' port alone.
            if way.bound.is_none() {
                let connection = Connection::start(&way.from, &way.server, way.to, 7100 + number);
                let connection = connection.unwrap_or_else(|e| panic!("{}: {e:#}", way.name));
                traffic.connections.push((way.name.clone(), connection));
            }
            let (from, probe) =
                (way.from.clone(), Probe { protocol: Protocol::Tcp, to: way.to, bound: way.bound });
            let over = Arc::clone(&over);
            let short = std::thread::spawn(move || {
                let mut count = 0;
                while !over.load(Ordering::Relaxed) {
                    // One that begins while one filter of a host end is replaced and the other is not is answered when its SYN
                    // is repeated, after longer than a probe waits.
                    patiently(&from, probe)?;
                    count += 1;
                    std::thread::sleep(poll::scaled(Duration::from_millis(20)));
                }
                Ok(count)
            });
            traffic.short.push((way.name.clone(), short));
        }
        traffic
    }

    /// Ends it; what was lost or cut is a failure.
    fn finish(self) {
        self.over.store(true, Ordering::Relaxed);
        let mut failed = Vec::new();
        for (name, datagrams) in self.datagrams {
            match datagrams.finish() {
                Ok(counted) if counted.answered == counted.sent && counted.sent > 0 => {}
                other => failed.push(format!("{name}, datagrams: {other:?}")),
            }
        }
        for (name, connection) in self.connections {
            if let Err(error) = connection.finish() {
                failed.push(format!("{name}, connection: {error:#}"));
            }
        }
        for (name, short) in self.short {
            match short.join().unwrap() {
                Ok(count) if count > 0 => {}
                other => failed.push(format!("{name}, short connections: {other:?}")),
            }
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }
}

/// Restarts the agent of the first node with this much room in `nat`, `arrivals`, `link_flows` and `cluster_cidrs`, and with the programs
/// of another file if there is one: other sizes, and other layouts, are another schema.
fn restart(
    lab: &mut Lab,
    entries: u32,
    object: Option<&Path>,
    start: impl Fn(&ControlPlane, &Node, &[(String, String)]) -> Result<Agent>,
) {
    lab.agents.remove(0).kill().unwrap();
    let node = &lab.topology.nodes[0];
    let sizes = ["NAT", "ARRIVALS", "LINK_FLOWS", "CIDRS"];
    let mut environment: Vec<_> =
        sizes.iter().map(|map| (format!("SPIDERPOOL_BPF_{map}"), entries.to_string())).collect();
    environment
        .extend(object.map(|object| ("SPIDERPOOL_BPF_OBJECT".to_owned(), object.display().to_string())));
    let agent = start(&lab.topology.plane, node, &environment).unwrap();
    lab.agents.insert(0, agent);
}

/// The programs with another layout of nearly every map: in BTF their padding has another name.
fn with_other_layouts(folder: &Path) -> PathBuf {
    let mut object = std::fs::read(tools::bpf_object().unwrap()).unwrap();
    let (name, other) = (b"\0_pad\0", b"\0_gap\0");
    for at in 0..object.len() - name.len() {
        if object[at..].starts_with(name) {
            object[at..at + name.len()].copy_from_slice(other);
        }
    }
    let path = folder.join("other-layouts.o");
    std::fs::write(&path, object).unwrap();
    path
}

/// The BTF of the pinned map.
fn layouts(node: &Namespaces, map: &str) -> String {
    let shown = node.output("bpftool", &["-j", "map", "show", "pinned", &format!("{PINS}/{map}")]).unwrap();
    let id = serde_json::from_str::<Value>(&shown).unwrap()["btf_id"].to_string();
    node.output("bpftool", &["btf", "dump", "id", &id]).unwrap()
}

/// The ids of the programs that the pods' filters run: of an upgrade all are others.
fn programs(pods: &[&Pod]) -> Vec<String> {
    let filters = pods.iter().map(|pod| {
        let nic = if pod.eth0 == pod.net1().unwrap_or(pod.eth0) { "veth0" } else { "net1" };
        let shown = pod.namespaces.output("tc", &["filter", "show", "dev", nic, "egress"]).unwrap();
        let mut words = shown.split_whitespace().skip_while(|word| *word != "id");
        words.nth(1).unwrap().to_owned()
    });
    filters.collect()
}

/// How many entries the pinned map has room for.
fn entries_of_nat(node: &Namespaces) -> Option<u64> {
    let shown = node.output("bpftool", &["-j", "map", "show", "pinned", &format!("{PINS}/nat")]).unwrap();
    serde_json::from_str::<Value>(&shown).unwrap()["max_entries"].as_u64()
}

#[test]
fn no_packet_is_lost_while_the_agent_is_killed_upgraded_and_rolled_back() {
    if !privilege::root_or_skip("no_packet_is_lost_while_the_agent") {
        return;
    }
    let mut lab = Lab::start(2, |_| ()).unwrap();
    let topology = &lab.topology;
    let [node, other] = topology.nodes.as_slice() else { panic!("two nodes") };
    let plane = &topology.plane;
    let pod = Pod::add(plane, node, &spec("upgraded", DefaultRoute::Eth0)).unwrap();
    let underlay = Pod::add(plane, node, &underlay_spec("underlay")).unwrap();
    let far = Pod::add(plane, other, &spec("far", DefaultRoute::Eth0)).unwrap();
    let servers: Vec<Server> =
        [&pod, &underlay, &far].map(|pod| Server::start(&pod.namespaces).unwrap()).into();
    let cluster_ip = service::create(plane, "upgrade", &[far.eth0]).unwrap();
    service::wait_for_proxy(node, cluster_ip, &[far.eth0]).unwrap();
    let mut ways = Vec::new();
    for family in Family::ALL {
        let mut way = |name: &str, from: &Namespaces, bound, to, server: &Namespaces| {
            ways.push(Way {
                name: format!("{name}, {family}"),
                from: from.clone(),
                bound,
                to,
                server: server.clone(),
            });
        };
        let net1 = pod.net1().unwrap().get(family);
        way("net1 to net1", &pod.namespaces, None, far.net1().unwrap().get(family), &far.namespaces);
        way("eth0 to eth0", &pod.namespaces, None, far.eth0.get(family), &far.namespaces);
        way("translated", &pod.namespaces, Some(net1), cluster_ip.get(family), &far.namespaces);
        way("node to net1", node, None, net1, &pod.namespaces);
        way("node to underlay pod", node, None, underlay.eth0.get(family), &underlay.namespaces);
        way("underlay pod to node's pod", &underlay.namespaces, None, pod.eth0.get(family), &pod.namespaces);
    }
    let pods = [&pod, &underlay];
    let other_layouts = with_other_layouts(&node.folder().unwrap());
    let before = programs(&pods);
    let traffic = Traffic::start(&ways);

    // Killed, and the same version again.
    restart(&mut lab, 262_144, None, Agent::start_with_environment);
    assert_eq!(entries_of_nat(&lab.topology.nodes[0]), Some(262_144));
    // Upgraded and rolled back: live entries are carried over, every filter runs the new programs.
    for (entries, object) in [(65_536, None), (32_768, None), (32_768, Some(&*other_layouts)), (32_768, None)]
    {
        let earlier = programs(&pods);
        restart(&mut lab, entries, object, Agent::start_contained);
        poll::until("the new programs on all NICs", LIMIT, || {
            let now = programs(&pods);
            anyhow::ensure!(
                now.iter().zip(&earlier).all(|(now, earlier)| now != earlier),
                "{now:?} {earlier:?}"
            );
            Ok(())
        })
        .unwrap();
        let node = &lab.topology.nodes[0];
        assert_eq!(entries_of_nat(node), Some(u64::from(entries)));
        for map in ["nat", "arrivals", "link_flows", "cluster_cidrs"] {
            assert_eq!(layouts(node, map).contains("'_gap'"), object.is_some(), "{map}");
        }
    }
    let log = lab.agents[0].log();
    assert!(log.contains("flows of replaced maps carried over"), "{log}");
    for lost in ["entries of a replaced map cannot be carried over", "cannot all be carried over"] {
        assert!(!log.contains(lost), "{log}");
    }
    assert_ne!(programs(&pods), before);
    // Somebody unmounts the BPF file system under the agent: programs and maps are held by filters and agent.
    let node = &lab.topology.nodes[0];
    node.output("umount", &["--lazy", "/sys/fs/bpf"]).unwrap();
    patiently(node, Probe { protocol: Protocol::Udp, to: pod.net1().unwrap().v4.into(), bound: None })
        .unwrap();
    let refused = Pod::add(&lab.topology.plane, node, &spec("refused", DefaultRoute::Eth0)).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("/sys/fs/bpf"), "{refused}");
    // It comes back, as the node's set-up mounts it: the agent pins again what it has, for plugins and for the next agent.
    node.output("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]).unwrap();
    poll::until("the pins", LIMIT, || {
        node.output(
            "ls",
            &["egress", "ingress", "nat"].map(|pin| format!("{PINS}/{pin}")).each_ref().map(String::as_str),
        )
    })
    .unwrap();
    let later = Pod::add(&lab.topology.plane, node, &spec("later", DefaultRoute::Eth0)).unwrap();
    assert_eq!(counters::nic_ids(&later.namespaces).unwrap().len(), 3);
    restart(&mut lab, 32_768, None, Agent::start_with_environment);
    traffic.finish();
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    drop(servers);
    for pod in [pod, underlay, later] {
        pod.del(plane, node).unwrap();
    }
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}
