//! A packet is changed wholly or not at all.

use super::{Processed, run, run_egress, run_ingress};
use crate::headers::{ACK, SYN};
use crate::model::Frame;
use crate::model::Tables;
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, NET2, SP0, at, tables};
use crate::model::traffic::Program;
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn ends(src: Endpoint, dst: Endpoint, family: Family) -> Ends {
    Ends { src: at(src, family), sport: 40_000, dst: at(dst, family), dport: 53 }
}

type Answer = fn(Ends) -> Frame;

/// First packet, answer and later packet of a flow to a Service, by protocol.
fn packets(e: Ends) -> [(Frame, Answer, Frame); 3] {
    [
        (frames::tcp(e, SYN, b""), |e| frames::tcp(e, SYN | ACK, b""), frames::tcp(e, ACK, b"x")),
        (frames::udp(e, b"q"), |e| frames::udp(e, b"a"), frames::udp(e, b"qq")),
        (
            frames::echo(e, true, e.sport, b"x"),
            |e| frames::echo(e, false, e.dport, b"x"),
            frames::echo(e, true, e.sport, b"y"),
        ),
    ]
}

/// The packet without memory for a copy: must come out as it went in, and not by eth0 if it has net1's source.
fn refused(tables: &Tables, outbound: bool, nic: u16, frame: &Frame) -> Processed {
    let unwritable = Frame { unwritable: true, ..frame.clone() };
    let done =
        if outbound { run_egress(tables, nic, &unwritable) } else { run_ingress(tables, nic, &unwritable) };
    assert_eq!(done.frame.bytes, frame.bytes, "changed although refused");
    assert_eq!(done.reason, Reason::Failed);
    done
}

fn passes_or_leaves_by_its_source(done: &Processed, nic: u16) {
    let own = Verdict::RedirectNeigh { ifindex: IFINDEX + u32::from(NET1) };
    let want = if nic == ETH0 { own } else { Verdict::Pass };
    assert_eq!(done.verdict, want, "from {nic}");
}

#[test]
fn translated_packets() {
    for family in FAMILIES {
        let e = ends(Endpoint::Nic(NET1), Endpoint::Service, family);
        let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
        for nic in [NET1, ETH0] {
            for (first, answer, later) in packets(e) {
                let tables = tables();
                passes_or_leaves_by_its_source(&refused(&tables, true, nic, &first), nic);
                assert_eq!(
                    run_egress(&tables, nic, &first).reason,
                    Reason::Translated,
                    "the translation was kept"
                );
                let back = refused(&tables, false, ETH0, &answer(seen.back()));
                assert_eq!(back.verdict, Verdict::Pass);
                passes_or_leaves_by_its_source(&refused(&tables, true, nic, &later), nic);
            }
        }
    }
}

/// Too long for eth0: that is found before anything is changed.
#[test]
fn translated_packets_that_are_too_long() {
    for family in FAMILIES {
        let e = ends(Endpoint::Nic(NET1), Endpoint::Service, family);
        for nic in [NET1, ETH0] {
            let tables = tables();
            let long = frames::udp(e, &[7; 1460]);
            passes_or_leaves_by_its_source(&refused(&tables, true, nic, &long), nic);
            assert_eq!(run_egress(&tables, nic, &long).reason, Reason::MtuExceeded);
        }
    }
}

/// A TCP header that ends in front of its checksum has ports, so it has a flow.
#[test]
fn segments_that_end_in_their_header() {
    for family in FAMILIES {
        let e = ends(Endpoint::Nic(NET1), Endpoint::Service, family);
        let mut short = frames::tcp(e, SYN, b"");
        short.bytes.truncate(short.bytes.len() - 8);
        for nic in [NET1, ETH0] {
            let done = run_egress(&tables(), nic, &short);
            assert_eq!((done.reason, &done.frame), (Reason::Failed, &short));
            passes_or_leaves_by_its_source(&done, nic);
        }
    }
}

#[test]
fn redirected_and_answered_packets() {
    for family in FAMILIES {
        let mut tables = tables();
        let call = ends(Endpoint::OverlayPod, Endpoint::Nic(NET1), family);
        run(&tables, Program::HostEgress, SP0, &frames::udp(call, b"q"));
        run_ingress(&tables, SP0, &frames::udp(call, b"q"));
        let answer = frames::udp(call.back(), b"a");
        passes_or_leaves_by_its_source(&refused(&tables, true, ETH0, &answer), ETH0);
        passes_or_leaves_by_its_source(&refused(&tables, true, NET2, &answer), NET2);
        let steered = frames::udp(ends(Endpoint::Nic(ETH0), Endpoint::Service, family), b"q");
        assert_eq!(refused(&tables, true, NET1, &steered).verdict, Verdict::Pass);
        tables.wildcard = true;
        let other_source = frames::udp(Ends { src: at(Endpoint::Nic(ETH0), family), ..call.back() }, b"a");
        assert_eq!(refused(&tables, true, ETH0, &other_source).verdict, Verdict::Pass);
        let request = neighbor_request(family);
        assert_eq!(refused(&tables, true, NET1, &request).verdict, Verdict::Pass);
    }
}

fn neighbor_request(family: Family) -> Frame {
    let octets = |place| (at(place, Family::V4), at(place, Family::V6));
    let ((own4, own6), (node4, node6)) = (octets(Endpoint::Nic(NET1)), octets(Endpoint::Node));
    match (own4, node4, own6, node6) {
        (std::net::IpAddr::V4(own), std::net::IpAddr::V4(node), ..) if family == Family::V4 => {
            frames::arp(own.octets(), node.octets())
        }
        (.., std::net::IpAddr::V6(own), std::net::IpAddr::V6(node)) => {
            frames::solicitation(own.octets(), node.octets())
        }
        _ => unreachable!("one address of each family"),
    }
}

/// Only the segment size is changed: of a flow that leaves where the kernel sent it, and of one that comes in.
#[test]
fn segment_sizes() {
    for family in FAMILIES {
        let call = ends(Endpoint::OverlayPod, Endpoint::Nic(ETH0), family);
        refused(&tables(), false, ETH0, &frames::tcp(call, SYN, b""));
    }
}
