//! The host end of the node link: what the pod cannot send, whatever it tries.

use std::collections::HashSet;

use proptest::prelude::*;

use super::run;
use crate::flow_state::SECOND;
use crate::headers::{self, ACK, FIN, Fragment, Headers, L4Kind, RST, SYN};
use crate::maps::PodUsage;
use crate::model::frames::{self, Ends};
use crate::model::pod::{Endpoint, Family, NET1, NICS, SHARE, SP0, at, tables};
use crate::model::traffic::{Program, TrafficStep};
use crate::model::{Frame, Tables};
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// A client on the node and a server in the pod.
fn call(family: Family) -> Ends {
    Ends { src: at(Endpoint::Node, family), sport: 40_000, dst: at(Endpoint::Nic(NET1), family), dport: 80 }
}

fn to_pod(tables: &Tables, frame: &Frame) -> Reason {
    let done = run(tables, Program::HostEgress, SP0, frame);
    assert_eq!(done.frame, *frame, "nothing is changed");
    let drops = matches!(done.reason, Reason::LinkSpoofed | Reason::LinkFull);
    assert_eq!(done.verdict, if drops { Verdict::Drop } else { Verdict::Pass }, "{}", done.reason);
    done.reason
}

fn from_pod(tables: &Tables, frame: &Frame) -> Reason {
    let done = run(tables, Program::HostIngress, SP0, frame);
    assert_eq!(done.frame, *frame, "nothing is changed");
    let passes = done.reason == Reason::LinkReply;
    assert_eq!(done.verdict, if passes { Verdict::Pass } else { Verdict::Drop }, "{}", done.reason);
    done.reason
}

/// Whatever a packet may be, by a name.
fn packets(e: Ends) -> Vec<(&'static str, Frame)> {
    let whole = frames::udp(e, &[7; 64]);
    vec![
        ("SYN", frames::tcp(e, SYN, b"")),
        ("SYN-ACK", frames::tcp(e, SYN | ACK, b"")),
        ("ACK", frames::tcp(e, ACK, b"data")),
        ("RST", frames::tcp(e, RST, b"")),
        ("no flags", frames::tcp(e, 0, b"")),
        ("UDP", frames::udp(e, b"query")),
        ("echo request", frames::echo(e, true, e.sport, b"x")),
        ("echo reply", frames::echo(e, false, e.sport, b"x")),
        ("INIT", frames::sctp(e, true)),
        ("SCTP", frames::sctp(e, false)),
        ("GRE", frames::other(e, 47, &[0; 16])),
        ("first fragment", frames::fragment(whole.clone(), true)),
        ("later fragment", frames::fragment(whole.clone(), false)),
        ("ICMP error", frames::icmp_error(e)),
        ("ICMP error about UDP", frames::icmp_error_about(e, &frames::udp(e.back(), b"x"))),
        ("cut short", Frame::new(whole.bytes[..40].to_vec())),
        ("nothing", Frame::new(vec![0; 14])),
    ]
}

#[test]
fn what_the_pod_starts_does_not_pass() {
    for family in FAMILIES {
        for remote in [Endpoint::Node, Endpoint::Service, Endpoint::OverlayPod, Endpoint::Outside] {
            let e = Ends { src: at(remote, family), ..call(family) }.back();
            for (name, frame) in packets(e) {
                let reason = from_pod(&tables(), &frame);
                let expect = if name == "nothing" { Reason::LinkIgnored } else { Reason::LinkDenied };
                assert_eq!(reason, expect, "{name} to {remote:?}");
            }
        }
    }
}

#[test]
fn neither_arp_nor_multicast_passes() {
    let group = Ends { dst: "224.0.0.251".parse().unwrap(), ..call(Family::V4).back() };
    let frames = [
        frames::arp([172, 18, 55, 180], [172, 18, 0, 3]),
        frames::solicitation([0xfd; 16], [0xfe; 16]),
        frames::udp(group, b"x"),
    ];
    for frame in frames {
        assert_eq!(from_pod(&tables(), &frame), Reason::LinkIgnored);
    }
}

/// Of a NIC that is not registered (any more) nothing passes, but nothing is kept from it either.
#[test]
fn without_an_entry_nothing_comes_from_the_pod() {
    for id in [0, 5, 63, 999].into_iter().chain(NICS.into_iter().filter(|id| *id != SP0)) {
        for (name, mut frame) in packets(call(Family::V4)) {
            let verdict = Program::HostIngress.run(&mut frame, id, &tables());
            assert_eq!(verdict, Verdict::Drop, "{name} from {id}");
            let verdict = Program::HostEgress.run(&mut frame, id, &tables());
            assert_eq!(verdict, Verdict::Pass, "{name} to {id}");
        }
    }
}

#[test]
fn what_the_node_starts_is_answered() {
    for family in FAMILIES {
        let e = call(family);
        let flows: [(&str, Frame, Vec<Frame>); 4] = [
            (
                "TCP",
                frames::tcp(e, SYN, b""),
                vec![
                    frames::tcp(e.back(), SYN | ACK, b""),
                    frames::tcp(e.back(), ACK, b"data"),
                    frames::tcp(e.back(), FIN | ACK, b""),
                    frames::tcp(e.back(), RST, b""),
                ],
            ),
            ("UDP", frames::udp(e, b"q"), vec![frames::udp(e.back(), b"a")]),
            (
                "echo",
                frames::echo(e, true, 7, b"x"),
                vec![frames::echo(Ends { sport: 7, ..e.back() }, false, 7, b"x")],
            ),
            (
                "SCTP",
                frames::sctp(e, true),
                vec![frames::sctp(e.back(), false), frames::sctp(e.back(), false)],
            ),
        ];
        for (name, first, answers) in flows {
            let tables = tables();
            assert_eq!(to_pod(&tables, &first), Reason::LinkOpened, "{name}");
            assert_eq!(to_pod(&tables, &first), Reason::LinkFlow, "{name}");
            for answer in answers {
                assert_eq!(from_pod(&tables, &answer), Reason::LinkReply, "{name}");
            }
        }
    }
}

/// A recorded flow is no way to anybody else: not to another port, address or protocol, and not by a SYN.
#[test]
fn a_recorded_flow_opens_nothing_else() {
    for family in FAMILIES {
        let e = call(family);
        let tables = tables();
        to_pod(&tables, &frames::tcp(e, SYN, b""));
        to_pod(&tables, &frames::udp(Ends { sport: 53, ..e }, b"q"));
        let answer = e.back();
        let others = [
            frames::tcp(answer, SYN, b""),
            frames::udp(answer, b"x"),
            frames::tcp(Ends { dport: 40_001, ..answer }, ACK, b"x"),
            frames::tcp(Ends { sport: 81, ..answer }, ACK, b"x"),
            frames::tcp(Ends { dst: at(Endpoint::Service, family), ..answer }, ACK, b"x"),
            frames::tcp(Ends { src: at(Endpoint::Second(NET1), family), ..answer }, ACK, b"x"),
            frames::echo(answer, false, 7, b"x"),
        ];
        for (number, frame) in others.iter().enumerate() {
            assert_eq!(from_pod(&tables, frame), Reason::LinkDenied, "{number}");
        }
    }
}

#[test]
fn answers_and_stray_segments_to_the_pod_record_nothing() {
    for family in FAMILIES {
        let (e, tables) = (call(family), tables());
        let frames = [
            frames::tcp(e, SYN | ACK, b""),
            frames::tcp(e, ACK, b"x"),
            frames::tcp(e, RST, b""),
            frames::echo(e, false, 40_000, b"x"),
            frames::sctp(e, false),
            frames::icmp_error(e),
            frames::other(e, 47, &[0; 8]),
        ];
        for frame in &frames {
            assert_eq!(to_pod(&tables, frame), Reason::LinkToPod);
        }
        for (name, frame) in packets(e.back()) {
            assert_ne!(from_pod(&tables, &frame), Reason::LinkReply, "{name}");
        }
    }
}

/// Somebody on the underlay sends through the node's MAC in the name of the node or of an overlay pod.
#[test]
fn a_borrowed_name_records_nothing() {
    for family in FAMILIES {
        for remote in [Endpoint::Node, Endpoint::OverlayPod, Endpoint::Service] {
            let e = Ends { src: at(remote, family), ..call(family) };
            let tables = Tables { forwarded: true, spoofed: true, ..tables() };
            for frame in [frames::tcp(e, SYN, b""), frames::udp(e, b"x"), frames::echo(e, true, 1, b"")] {
                assert_eq!(to_pod(&tables, &frame), Reason::LinkSpoofed);
            }
            assert_eq!(from_pod(&tables, &frames::udp(e.back(), b"x")), Reason::LinkDenied);
        }
    }
    let own = Tables { spoofed: true, ..tables() };
    assert_eq!(to_pod(&own, &frames::udp(call(Family::V4), b"x")), Reason::LinkOpened, "the node's own");
}

#[test]
fn fragments_follow_their_first() {
    for family in FAMILIES {
        let (e, tables) = (call(family), tables());
        to_pod(&tables, &frames::udp(e, b"q"));
        let whole = frames::udp(e.back(), &[7; 64]);
        let (first, later) = (frames::fragment(whole.clone(), true), frames::fragment(whole.clone(), false));
        assert_eq!(from_pod(&tables, &later), Reason::LinkDenied, "before its first");
        assert_eq!(from_pod(&tables, &first), Reason::LinkReply);
        assert_eq!(from_pod(&tables, &later), Reason::LinkReply);
        let mut other = later.clone();
        let id = if family == Family::V4 { 19 } else { 61 };
        other.bytes[id] ^= 1;
        assert_eq!(from_pod(&tables, &other), Reason::LinkDenied, "of another packet");
    }
}

#[test]
fn icmp_errors_are_those_about_recorded_flows() {
    for family in FAMILIES {
        let (e, tables) = (call(family), tables());
        to_pod(&tables, &frames::udp(e, b"q"));
        let about = |flow: Ends, to: Ends| frames::icmp_error_about(to, &frames::udp(flow, b"q"));
        assert_eq!(from_pod(&tables, &about(e, e.back())), Reason::LinkReply);
        let other = Ends { sport: 40_001, ..e };
        assert_eq!(from_pod(&tables, &about(other, e.back())), Reason::LinkDenied, "another flow");
        let elsewhere = Ends { dst: at(Endpoint::Service, family), ..e.back() };
        assert_eq!(from_pod(&tables, &about(e, elsewhere)), Reason::LinkDenied, "to somebody else");
        assert_eq!(from_pod(&tables, &about(e.back(), e.back())), Reason::LinkDenied, "about its own packet");
    }
}

#[test]
fn a_share_that_is_used_up_costs_that_pod_new_flows_only() {
    let mut tables = Tables { share: PodUsage { link_flows: 4, ..SHARE }, ..tables() };
    let e = call(Family::V4);
    let flow = |port| frames::udp(Ends { sport: port, ..e }, b"q");
    let forwarded = |tables: &Tables| Tables { forwarded: true, ..tables.clone() };
    for port in 1..4 {
        tables = forwarded(&tables);
        assert_eq!(to_pod(&tables, &flow(port)), Reason::LinkOpened);
    }
    assert_eq!(to_pod(&tables, &flow(4)), Reason::LinkFull, "the rest is for the node's own");
    tables.forwarded = false;
    assert_eq!(to_pod(&tables, &flow(4)), Reason::LinkOpened);
    assert_eq!(to_pod(&tables, &flow(5)), Reason::LinkFull);
    assert_eq!(to_pod(&tables, &flow(2)), Reason::LinkFlow);
    assert_eq!(from_pod(&tables, &frames::udp(Ends { sport: 1, ..e }.back(), b"a")), Reason::LinkReply);
    tables.now += 1000 * SECOND;
    assert_eq!(to_pod(&tables, &flow(2)), Reason::LinkOpened, "an expired one of the same tuple is free");
    assert_eq!(tables.usage.borrow()[&crate::model::pod::POD].link_flows, 4);
}

/// A RST that the pod ignored, because it is out of its window, cuts nothing, also after a silence.
#[test]
fn a_forged_rst_cuts_nothing() {
    let e = call(Family::V4);
    let mut tables = Tables { forwarded: true, ..tables() };
    to_pod(&tables, &frames::tcp(e, SYN, b""));
    from_pod(&tables, &frames::tcp(e.back(), SYN | ACK, b""));
    to_pod(&tables, &frames::tcp(e, ACK, b""));
    to_pod(&tables, &frames::tcp(e, RST, b""));
    tables.now += 600 * SECOND;
    assert_eq!(from_pod(&tables, &frames::tcp(e.back(), ACK, b"x")), Reason::LinkReply);
}

/// Clients that connect first and speak later: the pod has sent nothing but its SYN-ACK.
#[test]
fn a_connection_that_is_silent_after_its_handshake_lives() {
    let (e, mut tables) = (call(Family::V4), tables());
    to_pod(&tables, &frames::tcp(e, SYN, b""));
    from_pod(&tables, &frames::tcp(e.back(), SYN | ACK, b""));
    to_pod(&tables, &frames::tcp(e, ACK, b""));
    tables.now += 80_000 * SECOND;
    assert_eq!(to_pod(&tables, &frames::tcp(e, ACK, b"request")), Reason::LinkFlow);
    assert_eq!(from_pod(&tables, &frames::tcp(e.back(), ACK, b"")), Reason::LinkReply);
    tables.now += 90_000 * SECOND;
    assert_eq!(from_pod(&tables, &frames::tcp(e.back(), ACK, b"late")), Reason::LinkDenied);
}

/// Short connections take little room of the pod's share, whoever closes first.
#[test]
fn connections_that_have_ended_are_forgotten() {
    for family in FAMILIES {
        let e = call(family);
        let (ours, theirs) = (true, false);
        let endings: [(&[(bool, u8)], bool); 4] = [
            (&[(theirs, FIN | ACK), (ours, ACK), (ours, FIN | ACK), (theirs, ACK)], true),
            (&[(ours, FIN | ACK), (theirs, FIN | ACK), (ours, ACK)], false),
            (&[(ours, RST)], true),
            (&[(theirs, RST)], true),
        ];
        for (ending, is_removed) in endings {
            let mut tables = tables();
            to_pod(&tables, &frames::tcp(e, SYN, b""));
            from_pod(&tables, &frames::tcp(e.back(), SYN | ACK, b""));
            to_pod(&tables, &frames::tcp(e, ACK, b"x"));
            for (is_from_pod, flags) in ending {
                assert_eq!(tables.link_flows.borrow().len(), 1);
                let reason = if *is_from_pod {
                    from_pod(&tables, &frames::tcp(e.back(), *flags, b""))
                } else {
                    to_pod(&tables, &frames::tcp(e, *flags, b""))
                };
                assert!(matches!(reason, Reason::LinkReply | Reason::LinkFlow), "{reason}");
            }
            assert_eq!(tables.link_flows.borrow().is_empty(), is_removed, "{ending:?}");
            assert_eq!(tables.usage.borrow()[&crate::model::pod::POD].link_flows, u32::from(!is_removed));
            tables.now += 11 * SECOND;
            assert_eq!(from_pod(&tables, &frames::tcp(e.back(), ACK, b"")), Reason::LinkDenied);
        }
    }
}

/// The pod has closed its side and still receives: a FIN in the client's name, out of any window, does not stop it.
#[test]
fn a_forged_fin_cuts_nothing_while_there_are_packets() {
    let e = call(Family::V4);
    let mut tables = Tables { forwarded: true, ..tables() };
    to_pod(&tables, &frames::tcp(e, SYN, b""));
    from_pod(&tables, &frames::tcp(e.back(), SYN | ACK, b""));
    from_pod(&tables, &frames::tcp(e.back(), FIN | ACK, b""));
    for flags in [FIN | ACK, ACK] {
        to_pod(&tables, &frames::tcp(e, flags, b""));
    }
    for _ in 0..30 {
        tables.now += 9 * SECOND;
        assert_eq!(to_pod(&tables, &frames::tcp(e, ACK, b"upload")), Reason::LinkFlow);
        assert_eq!(from_pod(&tables, &frames::tcp(e.back(), ACK, b"")), Reason::LinkReply);
    }
}

/// A question and its answer are forgotten after half a minute, a caller that goes on is not; and the pod alone keeps no
/// flow alive: its caller's address may be somebody else's by then.
#[test]
fn the_caller_keeps_a_datagram_flow_alive() {
    let (e, mut tables) = (call(Family::V4), tables());
    let (question, answer) = (frames::udp(e, b"q"), frames::udp(e.back(), b"a"));
    to_pod(&tables, &question);
    for _ in 0..3 {
        tables.now += 10 * SECOND;
        assert_eq!(from_pod(&tables, &answer), Reason::LinkReply);
    }
    tables.now += SECOND;
    assert_eq!(from_pod(&tables, &answer), Reason::LinkDenied);
    to_pod(&tables, &question);
    from_pod(&tables, &answer);
    tables.now += 3 * SECOND;
    to_pod(&tables, &question);
    tables.now += 170 * SECOND;
    assert_eq!(from_pod(&tables, &answer), Reason::LinkReply);
    tables.now += 11 * SECOND;
    assert_eq!(from_pod(&tables, &answer), Reason::LinkDenied);
}

/// No route leads to a ClusterIP but the default route, by which anybody may come.
#[test]
fn a_service_calls_nobody() {
    for family in FAMILIES {
        let e = Ends { src: at(Endpoint::Service, family), ..call(family) };
        let tables = Tables { forwarded: true, ..tables() };
        assert_eq!(to_pod(&tables, &frames::udp(e, b"x")), Reason::LinkSpoofed);
    }
}

/// A source route, or a routing header, would carry the answer on to anybody.
#[test]
fn answers_that_name_a_route_do_not_pass() {
    let (e, tables) = (call(Family::V4), tables());
    to_pod(&tables, &frames::udp(e, b"q"));
    let mut routed = frames::udp(e.back(), b"a");
    routed.bytes[14] = 0x46;
    routed.bytes.splice(34..34, [131, 4, 4, 0]);
    assert_eq!(from_pod(&tables, &routed), Reason::LinkDenied);
    let e = call(Family::V6);
    to_pod(&tables, &frames::udp(e, b"q"));
    let mut routed = frames::with_extension(frames::udp(e.back(), b"a"));
    assert_eq!(from_pod(&tables, &routed), Reason::LinkReply);
    routed.bytes[20] = 43;
    assert_eq!(from_pod(&tables, &routed), Reason::LinkDenied);
}

/// Ports that are used again after both sides have closed, a second later, do not inherit the short time of the old connection.
#[test]
fn ports_that_are_used_again_begin_anew() {
    let (e, mut tables) = (call(Family::V4), tables());
    for _ in 0..2 {
        to_pod(&tables, &frames::tcp(e, SYN, b""));
        from_pod(&tables, &frames::tcp(e.back(), SYN | ACK, b""));
        to_pod(&tables, &frames::tcp(e, ACK, b"x"));
        tables.now += 3000 * SECOND;
        assert_eq!(from_pod(&tables, &frames::tcp(e.back(), FIN | ACK, b"")), Reason::LinkReply);
        to_pod(&tables, &frames::tcp(e, FIN | ACK, b""));
        assert_eq!(from_pod(&tables, &frames::tcp(e.back(), ACK, b"")), Reason::LinkReply);
        tables.now += SECOND;
    }
}

/// The tuple of a packet that has one, as the pod sends or gets it.
fn tuple(frame: &Frame, from_pod: bool) -> Option<(u8, Ends)> {
    let mut h = Headers::default();
    if !headers::parse(frame, &mut h) || h.fragment == Fragment::Later {
        return None;
    }
    let ends = frames::ends(frame)?;
    match h.l4.kind {
        L4Kind::Tcp | L4Kind::Udp | L4Kind::Sctp => {
            Some((h.l4.protocol, if from_pod { ends.back() } else { ends }))
        }
        L4Kind::EchoRequest | L4Kind::EchoReply => {
            let (src, dst) = if from_pod { (ends.dst, ends.src) } else { (ends.src, ends.dst) };
            Some((h.l4.protocol, Ends { src, dst, sport: ends.sport, dport: 0 }))
        }
        _ => None,
    }
}

proptest! {
    /// Nothing leaves by the link whose tuple nobody has opened, and never a SYN.
    #[test]
    fn only_what_was_opened_is_answered(
        theme in any::<u64>(),
        numbers in prop::collection::vec(any::<u64>(), 1..60),
    ) {
        let mut tables = tables();
        let mut opened = HashSet::new();
        for mut step in TrafficStep::sequence(theme, &numbers) {
            (step.nic, step.at_host_end) = (SP0, true);
            step.begin(&mut tables);
            let done = run(&tables, step.program(), SP0, &step.frame);
            let Some(tuple) = tuple(&step.frame, step.outbound) else { continue };
            if !step.outbound {
                if done.verdict == Verdict::Pass && !(step.forwarded && step.spoofed) {
                    opened.insert(tuple);
                }
            } else if done.verdict == Verdict::Pass {
                prop_assert!(opened.contains(&tuple), "{tuple:?} by {:?}", done.reason);
                let mut h = Headers::default();
                headers::parse(&step.frame, &mut h);
                prop_assert!(!h.is_syn());
            }
        }
    }
}
