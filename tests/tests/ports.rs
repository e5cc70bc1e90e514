//! Ports that are used again, at once and by both sides: no connection fails, and what they leave in the maps ends.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, SocketAddr};
use std::sync::MutexGuard;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use spiderpool_core::ip::Family;
use spiderpool_tests::churn::{ChurnServer, connect_often, open_at_once};
use spiderpool_tests::counters::PINS;
use spiderpool_tests::fixture::RouteHints;
use spiderpool_tests::lab::{Lab, lock_lab_of, spec, wait_for_hints};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::pod::{Pod, PodSpec};
use spiderpool_tests::{long_form, poll, privilege};

/// In the short form and with `--long`.
const CONNECTIONS: [usize; 2] = [8_000, 200_000];
/// Below `ip_local_port_range`.
const PORTS: std::ops::Range<u16> = 20_000..20_064;
/// A closed connection is forgotten after 10 seconds, and the agent looks every few.
const FORGOTTEN: Duration = Duration::from_secs(40);

fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    privilege::root_or_skip(test).then(|| lock_lab_of(2, |_| Ok(())).unwrap())
}

/// Entries of the map `nat`.
fn translations(node: &Namespaces) -> usize {
    let map = format!("{PINS}/nat");
    let dump: Value =
        serde_json::from_str(&node.output("bpftool", &["-j", "map", "dump", "pinned", &map]).unwrap())
            .unwrap();
    dump.as_array().unwrap().len()
}

#[test]
fn short_connections_over_few_ports_all_work_and_are_forgotten() {
    let Some(lab) = lab("short_connections") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let far = Pod::add(plane, &lab.topology.nodes[1], &PodSpec { name: "far".into(), ..PodSpec::default() })
        .unwrap();
    let server = ChurnServer::start(&far.namespaces).unwrap();
    let count = CONNECTIONS[usize::from(long_form::is_asked_for())] / Family::ALL.len();
    let pod = Pod::add(plane, node, &spec("busy", DefaultRoute::Eth0)).unwrap();
    for family in Family::ALL {
        let to = far.eth0.get(family);
        // By eth0's own address: what the kernel's own stack and the network make of it.
        connect_often(&pod.namespaces, pod.eth0.get(family), PORTS, to, 400).unwrap();
        connect_often(&pod.namespaces, pod.net1().unwrap().get(family), PORTS, to, count).unwrap();
        let left = translations(node);
        let most = 2 * (PORTS.len() + 64) * Family::ALL.len();
        assert!(left > 0 && left <= most, "{left} entries of {} ports", PORTS.len());
    }
    poll::until("the end of all translations", FORGOTTEN, || {
        let left = translations(node);
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .unwrap();
    pod.del(plane, node).unwrap();
    drop(server);
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}

/// The port of the other side, whose packets a node does not forward at first.
const CUT: u16 = 9100;

/// `own` is the pod's address, `seen` what it is for the other side.
fn open(lab: &Lab, pod: &Pod, (own, seen): (IpAddr, IpAddr), far: &Pod, port: u16) -> anyhow::Result<()> {
    let node = &lab.topology.nodes[1];
    let family = if own.is_ipv4() { Family::V4 } else { Family::V6 };
    let other = SocketAddr::new(far.eth0.get(family), CUT);
    let (own, seen) = (SocketAddr::new(own, port), SocketAddr::new(seen, port));
    node.nft(&format!(
        "table inet cut {{
            chain forward {{
                type filter hook forward priority filter;
                tcp sport {CUT} drop
                tcp dport {CUT} drop
            }}
        }}"
    ))?;
    open_at_once((&pod.namespaces, own), (&far.namespaces, other), seen, || node.nft("delete table inet cut"))
}

#[test]
fn both_sides_may_open_one_connection_at_once() {
    let Some(lab) = lab("both_sides_may_open") else { return };
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let far = Pod::add(plane, &lab.topology.nodes[1], &PodSpec { name: "peer".into(), ..PodSpec::default() })
        .unwrap();
    for (hints, route) in [
        (RouteHints::Auto, DefaultRoute::Net1),
        (RouteHints::Never, DefaultRoute::Net1),
        (RouteHints::Never, DefaultRoute::Eth0),
    ] {
        lab.set_coordinator(hints).unwrap();
        let name = format!("dialer-{}-{}", hints.name(), route.nic());
        let pod = Pod::add(plane, node, &spec(&name, route)).unwrap();
        wait_for_hints(node, &name, hints).unwrap();
        for family in Family::ALL {
            let (eth0, net1) = (pod.eth0.get(family), pod.net1().unwrap().get(family));
            open(&lab, &pod, (eth0, eth0), &far, 9200).expect(&name);
            open(&lab, &pod, (net1, eth0), &far, 9300).expect(&name);
        }
        pod.del(plane, node).unwrap();
    }
    lab.set_coordinator(RouteHints::Auto).unwrap();
    far.del(plane, &lab.topology.nodes[1]).unwrap();
}
