//! ICMP errors go where the flow goes that they quote, with addresses and ports of both sides of a translation.

use super::{run_egress, run_ingress};
use crate::flow_state::SECOND;
use crate::headers::{self, Headers, SYN};
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, NET2, at, tables};
use crate::model::{Frame, Tables};
use crate::nat::PORT_FIRST;
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

type Make = fn(Ends) -> Frame;

/// What the pod sends, and what is answered.
const PROTOCOLS: [(Make, Make); 3] = [
    (|e| frames::tcp(e, SYN, b""), |e| frames::tcp(e, 0x10, b"a")),
    (|e| frames::udp(e, b"q"), |e| frames::udp(e, b"a")),
    (|e| frames::echo(e, true, e.sport, b"x"), |e| frames::echo(e, false, e.dport, b"x")),
];

fn query(nic: u16, family: Family) -> Ends {
    Ends { src: at(Endpoint::Nic(nic), family), sport: 40_000, dst: at(Endpoint::Service, family), dport: 53 }
}

/// The ends of the packet that an error quotes; an echo's identifier counts as both ports.
fn quoted(error: &Frame) -> Ends {
    let (mut h, mut quoted) = (Headers::default(), Headers::default());
    assert!(headers::parse(error, &mut h) && headers::parse_quoted(error, &h, &mut quoted));
    Ends {
        src: frames::ip(quoted.src),
        sport: quoted.l4.src_port | quoted.l4.echo_id,
        dst: frames::ip(quoted.dst),
        dport: quoted.l4.dst_port | quoted.l4.echo_id,
    }
}

/// The IPv4 checksum of the quoted packet, with its header, gives 0xffff.
fn quoted_header_is_right(error: &Frame) -> bool {
    if error.bytes[12..14] != [8, 0] {
        return true;
    }
    let sum: u32 = error.bytes[42..62].chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// An error by a router, or by whom the packet was for, about what left the pod.
#[test]
fn errors_about_what_the_pod_has_sent_reach_its_socket() {
    for family in FAMILIES {
        for (send, _) in PROTOCOLS {
            let tables = tables();
            // The second one gets another port.
            for (nic, is_first) in [(NET1, true), (NET2, false)] {
                let e = query(nic, family);
                let sent = run_egress(&tables, nic, &send(e));
                let outside = frames::ends(&sent.frame).unwrap();
                assert_eq!(outside.sport >= PORT_FIRST, !is_first);
                for router in [Endpoint::Node, Endpoint::Service] {
                    let to_eth0 = Ends { src: at(router, family), dst: outside.src, sport: 0, dport: 0 };
                    let error = frames::icmp_error_about(to_eth0, &sent.frame);
                    let done = run_ingress(&tables, ETH0, &error);
                    assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::ErrorTranslated));
                    assert!(frames::sums_are_right(&done.frame) && quoted_header_is_right(&done.frame));
                    let ends = frames::ends(&done.frame).unwrap();
                    assert_eq!((ends.src, ends.dst), (to_eth0.src, e.src));
                    let inner = quoted(&done.frame);
                    assert_eq!((inner.src, inner.sport, inner.dst), (e.src, e.sport, e.dst));
                }
            }
        }
    }
}

/// An error of the pod, about an answer that it does not take.
#[test]
fn errors_of_the_pod_are_about_what_was_sent_to_it() {
    for family in FAMILIES {
        for (send, answer) in PROTOCOLS {
            for nic in [NET1, ETH0] {
                let (tables, e) = (tables(), query(NET1, family));
                let outside = frames::ends(&run_egress(&tables, nic, &send(e)).frame).unwrap();
                let back = run_ingress(&tables, ETH0, &answer(outside.back())).frame;
                let error = frames::icmp_error_about(e, &back);
                let done = run_egress(&tables, nic, &error);
                assert_eq!(done.reason, Reason::ErrorTranslated);
                let by = if nic == ETH0 { Verdict::Pass } else { Verdict::Redirect { ifindex: IFINDEX + 1 } };
                assert_eq!(done.verdict, by);
                assert!(frames::sums_are_right(&done.frame) && quoted_header_is_right(&done.frame));
                let ends = frames::ends(&done.frame).unwrap();
                assert_eq!((ends.src, ends.dst), (outside.src, outside.dst));
                assert_eq!((quoted(&done.frame).dst, quoted(&done.frame).src), (outside.src, outside.dst));
            }
        }
    }
}

fn unchanged(tables: &Tables, frame: &Frame) {
    let done = run_ingress(tables, ETH0, frame);
    assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::IcmpError));
    assert_eq!(&done.frame, frame);
}

#[test]
fn errors_about_other_flows_stay_as_they_are() {
    for family in FAMILIES {
        let (mut tables, e) = (tables(), query(NET1, family));
        let sent = run_egress(&tables, NET1, &frames::udp(e, b"q")).frame;
        let outside = frames::ends(&sent).unwrap();
        let to_eth0 = Ends { src: at(Endpoint::Node, family), dst: outside.src, sport: 0, dport: 0 };
        let other = frames::udp(Ends { sport: 40_001, ..outside }, b"q");
        unchanged(&tables, &frames::icmp_error_about(to_eth0, &other));
        // To somebody else than the quoted packet's sender.
        let further = Ends { dst: at(Endpoint::Second(ETH0), family), ..to_eth0 };
        unchanged(&tables, &frames::icmp_error_about(further, &sent));
        // Cut short within the quoted ports.
        let mut short = frames::icmp_error_about(to_eth0, &sent);
        let quoted = if family == Family::V4 { 42 + 20 } else { 62 + 40 };
        short.bytes.truncate(quoted + 3);
        unchanged(&tables, &short);
        tables.now += 1000 * SECOND;
        unchanged(&tables, &frames::icmp_error_about(to_eth0, &sent));
    }
}

/// They are no sign of life.
#[test]
fn errors_keep_no_flow_alive() {
    for family in FAMILIES {
        let (mut tables, e) = (tables(), query(NET1, family));
        let sent = run_egress(&tables, NET1, &frames::udp(e, b"q")).frame;
        let outside = frames::ends(&sent).unwrap();
        let to_eth0 = Ends { src: outside.dst, dst: outside.src, sport: 0, dport: 0 };
        let before = tables.nat.borrow().clone();
        tables.now += 30 * SECOND;
        let error = frames::icmp_error_about(to_eth0, &sent);
        assert_eq!(run_ingress(&tables, ETH0, &error).reason, Reason::ErrorTranslated);
        assert_eq!(*tables.nat.borrow(), before);
    }
}

/// Of a flow that came by an underlay NIC from an address that is steered.
#[test]
fn errors_about_a_recorded_flow_go_where_it_came_from() {
    for family in FAMILIES {
        let tables = tables();
        let call = Ends {
            src: at(Endpoint::OverlayPod, family),
            sport: 40_000,
            dst: at(Endpoint::Nic(NET1), family),
            dport: 53,
        };
        let call_frame = frames::udp(call, b"q");
        assert_eq!(run_ingress(&tables, NET1, &call_frame).reason, Reason::ArrivalNew);
        let error = frames::icmp_error_about(call.back(), &call_frame);
        let done = run_egress(&tables, ETH0, &error);
        assert_eq!(done.reason, Reason::ReplyRedirected);
        assert_eq!(done.verdict, Verdict::Redirect { ifindex: IFINDEX + u32::from(NET1) });
        assert_eq!(done.frame.bytes[..6], frames::SENDER);
    }
}
