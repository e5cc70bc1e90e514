//! Pods whose eth0 is one end of a netkit pair, as Cilium makes them where it is asked to. Runs on kernels that have these, since 6.7, which
//! `cargo xtask vmtest` brings.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use spiderpool_core::coordinator::Dataplane;
use spiderpool_tests::fixture::{Fixture as _, RouteHints, run_matrix};
use spiderpool_tests::lab::LabFixture;
use spiderpool_tests::link_kinds::{LinkKind, known_or_skip};
use spiderpool_tests::matrix::{DefaultNetwork, DefaultRoute};
use spiderpool_tests::netkit::Mode;
use spiderpool_tests::probe::Protocol;
use spiderpool_tests::topology::{NodeKind, Pair};
use spiderpool_tests::{node_ports, privilege};

/// A node of the pods under test, and another one.
fn start(test: &str, network: DefaultNetwork, modes: [Mode; 2], dataplane: Dataplane) -> Option<LabFixture> {
    if !privilege::root_or_skip(test) || !known_or_skip(test, &[LinkKind::Netkit]).unwrap() {
        return None;
    }
    let kinds = modes.map(|mode| NodeKind { network, pair: Pair::Netkit(mode), ..NodeKind::default() });
    Some(LabFixture::start_on(kinds, dataplane, |_| ()).unwrap())
}

fn finish(fixture: LabFixture, failed: &[String]) {
    Box::new(fixture).finish().unwrap();
    assert!(failed.is_empty(), "{} flows failed:\n{}", failed.len(), failed.join("\n"));
}

/// All flows of pods with each default route, with and without route hints, NodePorts among them.
fn check(test: &str, modes: [Mode; 2]) {
    let Some(mut fixture) = start(test, DefaultNetwork::Cilium, modes, Dataplane::Ebpf) else { return };
    let mut failed = run_matrix(&mut fixture, &[RouteHints::Auto, RouteHints::Never]).unwrap();
    for default_route in DefaultRoute::ALL {
        let name = format!("ported-{}", default_route.nic());
        let pod = fixture.add_pod(&name, default_route).unwrap();
        let checked = node_ports::check(fixture.lab(), &name, pod.underlay, &[Protocol::Tcp, Protocol::Udp]);
        failed.extend(checked.err().map(|error| format!("{error:#}")));
    }
    finish(fixture, &failed);
}

/// As Cilium makes them unless it is told otherwise: neither end has a MAC.
#[test]
fn pods_behind_netkit_that_carries_ip_are_steered_and_reached() {
    check("pods_behind_netkit_that_carries_ip", [Mode::L3, Mode::L2]);
}

#[test]
fn pods_behind_netkit_that_carries_ethernet_are_steered_and_reached() {
    check("pods_behind_netkit_that_carries_ethernet", [Mode::L2, Mode::L3]);
}

/// Beside a network that lets through what has no address of eth0.
#[test]
fn rules_lead_to_the_cluster_by_netkit() {
    let (network, modes) = (DefaultNetwork::Calico, [Mode::L3, Mode::L2]);
    let Some(mut fixture) = start("rules_lead_to_the_cluster_by_netkit", network, modes, Dataplane::Policy)
    else {
        return;
    };
    let failed = run_matrix(&mut fixture, &[RouteHints::Auto]).unwrap();
    finish(fixture, &failed);
}
