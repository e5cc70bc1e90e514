//! Conflict and gateway detection on a real link: real macvlan NICs, a machine that has addresses of a pool, a machine that
//! answers for every address, and a gateway that is cut off.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, socket};
use serde_json::{Value, json};
use spiderpool_core::detection::{arp, ndp};
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::cni::Network;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::dual::Dual;
use spiderpool_tests::lab::{Lab, lock_lab, macvlan, pool, spec};
use spiderpool_tests::matrix::{DefaultRoute, Gateway};
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::{cni, poll, privilege};

/// What follows by itself, on a busy machine.
const LATER: Duration = Duration::from_secs(15);

/// An agent on the lab's node with this configuration, in place of its usual one.
fn with_agent(config: &Value, test: impl FnOnce(&Lab)) {
    let mut lab = lock_lab(|_| Ok(())).unwrap();
    lab.agents.remove(0).stop().unwrap();
    let agent = Agent::start_with_config(&lab.topology.plane, &lab.topology.nodes[0], config).unwrap();
    test(&lab);
    agent.stop().unwrap();
    let usual = Agent::start(&lab.topology.plane, &lab.topology.nodes[0]).unwrap();
    lab.agents.push(usual);
}

/// Both detections, patient enough for a busy machine.
fn on() -> Value {
    json!({
        "enableIPConflictDetection": true, "enableGatewayDetection": true,
        "detection": {"probes": 5, "intervalMilliseconds": 300, "quarantineSeconds": 600},
    })
}

fn apply(plane: &ControlPlane, pools: &[Value]) {
    plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pools}).to_string()).unwrap();
}

/// A pod whose net1 takes its addresses from the first of these pools that has one.
fn pod_of(name: &str, v4: &[&str], v6: &[&str]) -> PodSpec {
    let mut network: Network = macvlan("", "");
    network.plugins[0]["ipam"]["default_ipv4_ippool"] = json!(v4);
    network.plugins[0]["ipam"]["default_ipv6_ippool"] = json!(v6);
    PodSpec { networks: vec![network], ..spec(name, DefaultRoute::Eth0) }
}

/// The pod must not start; why.
fn refused(lab: &Lab, spec: &PodSpec) -> String {
    let node = &lab.topology.nodes[0];
    match Pod::add(&lab.topology.plane, node, spec) {
        Err(error) => format!("{error:#}"),
        Ok(_) => panic!(
            "it starts: {}",
            node.output("tail", &["-n", "9", "/var/log/spidernet/spiderpool.log"]).unwrap()
        ),
    }
}

fn object(plane: &ControlPlane, address: IpAddr) -> Value {
    let found = plane.kubectl(&["get", "sip", &object_name(address), "-o", "json"]).unwrap();
    serde_json::from_str(&found).unwrap()
}

/// The pod object of an ADD that has failed.
fn delete_failed(plane: &ControlPlane, name: &str) {
    plane.kubectl(&["delete", "pod", name, "--grace-period=0", "--force"]).unwrap();
}

fn delete_all_addresses(plane: &ControlPlane) {
    plane.kubectl(&["delete", "sip", "--all"]).unwrap();
}

fn events(plane: &ControlPlane, pod: &str) -> String {
    let events = plane.events("default", &format!("involvedObject.name={pod}")).unwrap();
    let lines = events.iter().map(|event| format!("{} {}", event["reason"], event["message"]));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_pod_gets_other_addresses_in_place_of_those_that_a_machine_outside_has() {
    if !privilege::root_or_skip("a_pod_gets_other_addresses_in_place_of_those_that_a_machine_outside_has") {
        return;
    }
    with_agent(&on(), |lab| {
        let (plane, node, squatter) = (&lab.topology.plane, &lab.topology.nodes[0], &lab.topology.gateway);
        let taken = Dual::new("10.66.40.7".parse().unwrap(), "fd66::28:7".parse().unwrap());
        squatter
            .ip(&format!("addr add {}/16 dev ul\naddr add {}/64 dev ul nodad", taken.v4, taken.v6))
            .unwrap();
        let mac = squatter.mac_of("ul").unwrap();
        apply(
            plane,
            &[
                pool("taken-v4", &["10.66.40.7"]),
                pool("taken-v6", &["fd66::28:7"]),
                pool("spare-v4", &["10.66.41.1-10.66.41.9"]),
                pool("spare-v6", &["fd66::29:1-fd66::29:9"]),
            ],
        );
        let wanted = |name| pod_of(name, &["taken-v4", "spare-v4"], &["taken-v6", "spare-v6"]);
        let pod = Pod::add(plane, node, &wanted("exchanged")).unwrap();
        let net1 = pod.net1().unwrap();
        assert!(net1.v4.to_string().starts_with("10.66.41."), "{net1:?}");
        assert!(net1.v6.to_string().starts_with("fd66::29:"), "{net1:?}");
        for address in [IpAddr::from(taken.v4), taken.v6.into()] {
            let object = object(plane, address);
            let spec = &object["spec"];
            assert_eq!((&spec["state"], spec.get("node")), (&json!("quarantined"), None), "{object}");
            assert_eq!(spec["quarantine"]["by"], json!(mac));
            let shown = plane.kubectl(&["get", "sip", &object_name(address)]).unwrap();
            assert!(shown.contains("quarantined"), "{shown}");
            poll::until("an Event that tells it", LATER, || {
                let events = events(plane, "exchanged");
                let part = format!("{address} of IPPool taken-v");
                let line =
                    events.lines().find(|line| line.contains("AddressQuarantined") && line.contains(&part));
                ensure!(line.is_some_and(|line| line.contains(&mac)), "{events}");
                Ok(())
            })
            .unwrap();
        }
        // The NIC has come up as usual: who was asked by nobody before knows it.
        squatter.output("ping", &["-c", "1", "-W", "5", &net1.v4.to_string()]).unwrap();
        squatter.output("ping", &["-6", "-c", "1", "-W", "5", &net1.v6.to_string()]).unwrap();
        poll::until("the endpoint", LATER, || {
            let endpoint = plane.kubectl(&["get", "spiderendpoint", "exchanged", "-o", "json"])?;
            ensure!(
                endpoint.contains(&net1.v4.to_string()) && endpoint.contains(&net1.v6.to_string()),
                "{endpoint}"
            );
            ensure!(!endpoint.contains(&taken.v4.to_string()), "{endpoint}");
            Ok(())
        })
        .unwrap();

        // A repeated ADD finds the addresses on the NIC, where its own kernel would answer for them.
        let (network, attachment, _) = &pod.attachments[0];
        let config = network.config(&network.plugins[0], &Value::Null).unwrap();
        let again = cni::execute_type(node, "spiderpool", "ADD", attachment, &config).unwrap();
        assert!(again["ips"].to_string().contains(&format!("{}/16", net1.v4)), "{again}");
        let link = pod.namespaces.output("ip", &["link", "show", "dev", "net1"]).unwrap();
        assert!(link.contains("UP"), "{link}");

        // The next pod is not given them at all.
        let next = Pod::add(plane, node, &wanted("next")).unwrap();
        assert!(next.net1().unwrap().v4.to_string().starts_with("10.66.41."));
        assert!(!events(plane, "next").contains("AddressQuarantined"));
        for pod in [pod, next] {
            pod.del(plane, node).unwrap();
        }
        assert_eq!(object(plane, taken.v4.into())["spec"]["state"], json!("quarantined"));
        squatter.ip(&format!("addr del {}/16 dev ul\naddr del {}/64 dev ul", taken.v4, taken.v6)).unwrap();
        delete_all_addresses(plane);
    });
}

/// Linux answers for whatever its table `local` has.
#[test]
fn a_machine_that_answers_for_every_address_costs_a_pool_a_bounded_share_of_them() {
    if !privilege::root_or_skip(
        "a_machine_that_answers_for_every_address_costs_a_pool_a_bounded_share_of_them",
    ) {
        return;
    }
    with_agent(&on(), |lab| {
        let (plane, node, liar) = (&lab.topology.plane, &lab.topology.nodes[0], &lab.topology.gateway);
        liar.ip("route add local 10.66.50.0/24 dev lo").unwrap();
        apply(plane, &[pool("lied-v4", &["10.66.50.1-10.66.50.30"])]);
        let quarantined = || {
            let list = ["get", "sip", "-l", "ipam.spidernet.io/quarantined=true", "-o", "name"];
            plane.kubectl(&list).unwrap().lines().count()
        };
        let attempt = |name: &str| {
            let error = refused(lab, &pod_of(name, &["lied-v4"], &[]));
            delete_failed(plane, name);
            error
        };
        let first = attempt("lied-to-0");
        assert!(first.contains("others use addresses on the network of NIC net1: 10.66.50."), "{first}");
        assert_eq!(first.matches("10.66.50.").count(), 4, "{first}");
        assert_eq!(quarantined(), 3, "the last one is said in the next attempt");
        let refused = (1..9).map(|number| attempt(&format!("lied-to-{number}")));
        let refused = refused.into_iter().find(|error| error.contains("are quarantined already"));
        assert!(refused.is_some_and(|error| error.contains("of IPPool lied-v4")));
        // The API server's memory may be a moment behind.
        assert!((8..=10).contains(&quarantined()), "{}", quarantined());
        liar.ip("route del local 10.66.50.0/24 dev lo").unwrap();
        let network = pod_of("believed", &["lied-v4"], &[]);
        let pod = Pod::add(plane, node, &network).unwrap();
        pod.del(plane, node).unwrap();
        delete_all_addresses(plane);
    });
}

#[test]
fn a_pod_whose_gateway_is_dead_does_not_start_and_does_when_it_answers() {
    if !privilege::root_or_skip("a_pod_whose_gateway_is_dead_does_not_start_and_does_when_it_answers") {
        return;
    }
    with_agent(&on(), |lab| {
        let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
        let failed = |name: &str, v6: &str| refused(lab, &pod_of(name, &["underlay-v4"], &[v6]));
        lab.topology.set_underlay_gateway_of(node, Gateway::Dead).unwrap();
        let error = failed("cut-off", "underlay-v6");
        let part =
            "no answer from gateway 10.66.0.1 and gateway fd66::1 on the network of NIC net1 within 1500 ms";
        assert!(error.contains(part), "{error}");
        lab.topology.set_underlay_gateway_of(node, Gateway::Alive).unwrap();
        // As after any ADD that failed: the pod that is alive keeps them.
        let held = plane.kubectl(&["get", "sip", "-o", "json"]).unwrap();
        let held: Value = serde_json::from_str(&held).unwrap();
        let states: Vec<_> =
            held["items"].as_array().unwrap().iter().map(|sip| &sip["spec"]["state"]).collect();
        assert_eq!(states, [&json!("bound"), &json!("bound")]);
        delete_failed(plane, "cut-off");

        // One family alone.
        let mut wrong = pool("wrong-v6", &["fd66::2a:1-fd66::2a:9"]);
        wrong["spec"]["gateway"] = json!("fd66::dead");
        apply(plane, &[wrong]);
        let error = failed("half", "wrong-v6");
        assert!(error.contains("no answer from gateway fd66::dead on"), "{error}");
        delete_failed(plane, "half");

        let pod = Pod::add(plane, node, &pod_of("connected", &["underlay-v4"], &["underlay-v6"])).unwrap();
        pod.del(plane, node).unwrap();
        poll::until("the end of the addresses", LATER, || {
            let left = plane.kubectl(&["get", "sip", "-o", "name"])?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })
        .unwrap();
    });
}

/// With it, the same recorder sees the probes.
#[test]
fn without_detection_nothing_is_probed() {
    if !privilege::root_or_skip("without_detection_nothing_is_probed") {
        return;
    }
    for (config, probed) in [(json!({}), false), (on(), true)] {
        with_agent(&config, |lab| {
            let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
            let recorder = Recorder::start(node);
            let name = format!("probed-{probed}");
            let pod = Pod::add(plane, node, &pod_of(&name, &["underlay-v4"], &["underlay-v6"])).unwrap();
            let probes = recorder.finish().unwrap();
            let net1 = pod.net1().unwrap();
            for address in [IpAddr::from(net1.v4), net1.v6.into()] {
                let expect = if probed { 5 } else { 0 };
                assert_eq!(probes.get(&address).copied().unwrap_or(0), expect, "{address}: {probes:?}");
            }
            pod.del(plane, node).unwrap();
        });
    }
}

/// Counts the probes that leave a machine, by the address that they ask for.
struct Recorder {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<BTreeMap<IpAddr, usize>>>,
}

impl Recorder {
    fn start(node: &Namespaces) -> Self {
        /// `PACKET_OUTGOING` of linux/if_packet.h.
        const OUTGOING: u8 = 4;
        let over = Arc::new(AtomicBool::new(false));
        let (ended, opened) = (Arc::clone(&over), Arc::new(AtomicBool::new(false)));
        let open = Arc::clone(&opened);
        let thread = node.spawn(move || {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let packets = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?;
            open.store(true, Ordering::SeqCst);
            let (mut probes, mut bytes) = (BTreeMap::new(), [0; 256]);
            loop {
                // What has been sent before it was ended is read.
                let is_over = ended.load(Ordering::SeqCst);
                match recvfrom::<LinkAddr>(packets.as_raw_fd(), &mut bytes) {
                    Ok((length, Some(from))) if from.pkttype() == OUTGOING => {
                        if let Some(target) = probed(&bytes[..length.min(bytes.len())]) {
                            *probes.entry(target).or_insert(0) += 1;
                        }
                    }
                    Ok(_) => {}
                    Err(Errno::EAGAIN) if is_over => return Ok(probes),
                    Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(1)),
                    Err(error) => return Err(error.into()),
                }
            }
        });
        while !opened.load(Ordering::SeqCst) {
            assert!(!thread.is_finished(), "the recorder did not start");
            thread::sleep(Duration::from_millis(1));
        }
        Self { over, thread }
    }

    fn finish(self) -> Result<BTreeMap<IpAddr, usize>> {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// The address that is probed for.
fn probed(bytes: &[u8]) -> Option<IpAddr> {
    if let Some(arp) = arp::parse(bytes) {
        return arp.sender.is_unspecified().then(|| arp.target.into());
    }
    match ndp::parse(bytes)? {
        ndp::Message::Solicitation { source: None, target } => Some(target.into()),
        _ => None,
    }
}
