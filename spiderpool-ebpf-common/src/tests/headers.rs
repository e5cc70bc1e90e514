//! What is read of packets: transport and fragmentation apart.

use crate::headers::{self, Fragment, Headers, L4Kind, SYN};
use crate::maps::{Direction, FlowKey};
use crate::model::Frame;
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, NET1, POD, at, tables};
use crate::protocol::UDP;
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn ends(family: Family) -> Ends {
    Ends { src: at(Endpoint::Nic(NET1), family), sport: 40_000, dst: at(Endpoint::Node, family), dport: 80 }
}

fn read(frame: &Frame) -> Headers {
    let mut h = Headers::default();
    assert!(headers::parse(frame, &mut h));
    h
}

#[test]
fn transports() {
    for family in FAMILIES {
        let e = ends(family);
        let sctp = [&e.sport.to_be_bytes()[..], &e.dport.to_be_bytes(), &[0; 8]].concat();
        for (frame, kind, ports, id) in [
            (frames::tcp(e, SYN, b""), L4Kind::Tcp, (40_000, 80), 0),
            (frames::udp(e, b"x"), L4Kind::Udp, (40_000, 80), 0),
            (frames::other(e, 132, &sctp), L4Kind::Sctp, (40_000, 80), 0),
            (frames::echo(e, true, 7, b"x"), L4Kind::EchoRequest, (0, 0), 7),
            (frames::echo(e, false, 7, b"x"), L4Kind::EchoReply, (0, 0), 7),
            (frames::icmp_error(e), L4Kind::IcmpError, (0, 0), 0),
            (frames::other(e, 47, &[0; 8]), L4Kind::Other, (0, 0), 0),
            (frames::other(e, 132, &[0; 4]), L4Kind::Malformed, (0, 0), 0),
        ] {
            let h = read(&frame);
            let got = (h.l4.kind, (h.l4.src_port, h.l4.dst_port), h.l4.echo_id, h.fragment);
            assert_eq!(got, (kind, ports, id, Fragment::No), "{family:?}");
        }
    }
}

/// The first fragment has the ports of the packet, the others have no transport header.
#[test]
fn fragments() {
    for family in FAMILIES {
        let whole = frames::udp(ends(family), &[7; 64]);
        let first = read(&frames::fragment(whole.clone(), true));
        assert_eq!((first.fragment, first.l4.kind, first.l4.dst_port), (Fragment::First, L4Kind::Udp, 80));
        let later = read(&frames::fragment(whole.clone(), false));
        assert_eq!((later.fragment, later.l4.kind, later.l4.dst_port), (Fragment::Later, L4Kind::Absent, 0));
        assert_eq!((first.l4.protocol, later.l4.protocol), (UDP, UDP));
        assert!(first.is_tracked() && !later.is_tracked());
        assert!(read(&whole).is_tracked());
    }
}

#[test]
fn both_directions_of_a_flow_have_one_key() {
    for family in FAMILIES {
        let e = ends(family);
        for (request, answer) in [
            (frames::tcp(e, SYN, b""), frames::tcp(e.back(), SYN, b"")),
            (frames::udp(e, b"q"), frames::udp(e.back(), b"a")),
            (frames::echo(e, true, 7, b""), frames::echo(e.back(), false, 7, b"")),
        ] {
            let key = FlowKey::of(POD, &read(&request), Direction::Egress);
            assert_eq!(FlowKey::of(POD, &read(&answer), Direction::Ingress), key);
            let (other, port) = (frames::addr(at(Endpoint::Nic(ETH0), family)), 61_000);
            let translated = key.counterpart(other, port);
            assert_ne!(translated, key);
            assert_eq!(translated.counterpart(key.local, key.local_port), key);
        }
    }
}

/// Nothing of the pod's IPv4 state is looked up for them, let alone changed.
#[test]
fn mapped_addresses_in_ipv6_pass_as_malformed() {
    let (v4, v6) = (ends(Family::V4), ends(Family::V6));
    let mapped = |ip| frames::addr(ip).bytes;
    let tables = tables();
    super::run_ingress(&tables, NET1, &frames::udp(v4.back(), b"q"));
    let before = tables.clone();
    for (src, dst) in [
        (mapped(v4.src), mapped(v4.dst)),
        (mapped(v4.src), mapped(v6.dst)),
        (mapped(v6.src), mapped(v4.dst)),
        (mapped(at(Endpoint::Nic(ETH0), Family::V4)), mapped(v6.dst)),
    ] {
        for make in [|e| frames::udp(e, b"q"), |e| frames::tcp(e, SYN, b""), frames::icmp_error] {
            let mut frame: Frame = make(v6);
            frame.bytes[22..38].copy_from_slice(&src);
            frame.bytes[38..54].copy_from_slice(&dst);
            for nic in [NET1, ETH0] {
                for run in [super::run_egress, super::run_ingress] {
                    let done = run(&tables, nic, &frame);
                    assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::Malformed));
                    assert_eq!(done.frame, frame);
                }
            }
        }
    }
    assert_eq!(*tables.arrivals.borrow(), *before.arrivals.borrow());
    let asked = super::run_egress(&tables, NET1, &frames::solicitation(mapped(v6.src), mapped(v4.dst)));
    assert_eq!((asked.verdict, asked.reason), (Verdict::Pass, Reason::LinkScope));
}
