//! ARP and neighbor solicitations for node addresses.

use std::net::IpAddr;

use super::{run_egress, run_ingress};
use crate::addr::Addr;
use crate::maps::{CidrAction, CidrKind};
use crate::model::Frame;
use crate::model::frames::{self, SENDER};
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, PROFILE, at, mac, tables};
use crate::reason::Reason;
use crate::rewrite::answer::NODE_MAC;
use crate::state::LogEvent;
use crate::verdict::Verdict;

fn v4(place: Endpoint) -> [u8; 4] {
    let IpAddr::V4(ip) = at(place, Family::V4) else { unreachable!() };
    ip.octets()
}

fn v6(place: Endpoint) -> [u8; 16] {
    let IpAddr::V6(ip) = at(place, Family::V6) else { unreachable!() };
    ip.octets()
}

const SELF: Verdict = Verdict::RedirectIngress { ifindex: IFINDEX + NET1 as u32 };

#[test]
fn arp_for_the_node_is_answered() {
    let tables = tables();
    let done = run_egress(&tables, NET1, &frames::arp(v4(Endpoint::Nic(NET1)), v4(Endpoint::Node)));
    assert_eq!((done.verdict, done.reason), (SELF, Reason::ArpAnswered));
    let mut want = mac(NET1).to_vec();
    want.extend(NODE_MAC);
    want.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    want.extend(NODE_MAC);
    want.extend(v4(Endpoint::Node));
    want.extend(SENDER);
    want.extend(v4(Endpoint::Nic(NET1)));
    assert_eq!(done.frame.bytes, want);
    assert_eq!(*tables.events.borrow(), [LogEvent::NeighborAnswered]);
    assert_eq!(run_ingress(&tables, NET1, &done.frame).reason, Reason::NotIp);
}

#[test]
fn arp_for_a_node_address_that_is_the_gateway_passes() {
    let mut tables = tables();
    let IpAddr::V4(node) = at(Endpoint::Node, Family::V4) else { unreachable!() };
    tables.cidrs.retain(|(_, _, entry)| entry.kind != CidrKind::Node as u8);
    tables.cidr(PROFILE, Addr::v4(node.octets()), 32, CidrAction::Steer, CidrKind::NodeGateway);
    let frame = frames::arp(v4(Endpoint::Nic(NET1)), node.octets());
    let done = run_egress(&tables, NET1, &frame);
    assert_eq!((done.verdict, done.reason, done.frame), (Verdict::Pass, Reason::NotIp, frame));
}

#[test]
fn other_arp_passes_untouched() {
    let tables = tables();
    let (own, node) = (v4(Endpoint::Nic(NET1)), v4(Endpoint::Node));
    let mut reply = frames::arp(own, node);
    reply.bytes[21] = 2;
    for (nic, frame) in [
        (NET1, frames::arp(own, v4(Endpoint::Neighbor))),
        (NET1, frames::arp([0; 4], node)),
        (NET1, frames::arp(node, node)),
        (NET1, reply),
        (ETH0, frames::arp(own, node)),
    ] {
        let done = run_egress(&tables, nic, &frame);
        assert_eq!((done.verdict, done.reason, done.frame), (Verdict::Pass, Reason::NotIp, frame));
    }
}

#[test]
fn solicitation_for_the_node_is_answered() {
    let tables = tables();
    let asked = frames::solicitation(v6(Endpoint::Nic(NET1)), v6(Endpoint::Node));
    let done = run_egress(&tables, NET1, &asked);
    assert_eq!((done.verdict, done.reason), (SELF, Reason::NdpAnswered));
    let b = &done.frame.bytes;
    assert_eq!((&b[..6], &b[6..12]), (&mac(NET1)[..], &NODE_MAC[..]));
    assert_eq!((b[20], b[21]), (58, 255));
    assert_eq!((&b[22..38], &b[38..54]), (&v6(Endpoint::Node)[..], &v6(Endpoint::Nic(NET1))[..]));
    assert_eq!((b[54], b[58]), (136, 0x60));
    assert_eq!((&b[62..78], &b[78..80], &b[80..86]), (&v6(Endpoint::Node)[..], &[2, 1][..], &NODE_MAC[..]));
    assert!(frames::sums_are_right(&done.frame));
}

#[test]
fn other_solicitations_pass_untouched() {
    let tables = tables();
    let (own, node) = (v6(Endpoint::Nic(NET1)), v6(Endpoint::Node));
    let mut far = frames::solicitation(own, node);
    far.bytes[21] = 64;
    let mut short: Frame = frames::solicitation(own, node);
    short.bytes.truncate(78);
    for (nic, frame) in [
        (NET1, frames::solicitation(own, v6(Endpoint::Neighbor))),
        (NET1, frames::solicitation([0; 16], node)),
        (NET1, far),
        (NET1, short),
        (ETH0, frames::solicitation(own, node)),
    ] {
        let done = run_egress(&tables, nic, &frame);
        assert_eq!((done.verdict, done.reason, done.frame), (Verdict::Pass, Reason::LinkScope, frame));
    }
}
