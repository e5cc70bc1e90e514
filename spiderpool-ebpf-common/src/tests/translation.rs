//! Translation: there and back, ports that are taken, no room, ends of flows.

use super::{run_egress, run_ingress};
use crate::flow_state::SECOND;
use crate::headers::{ACK, FIN, RST, SYN};
use crate::maps::{FlowKey, Tuple};
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, NET1, NET2, POD, at, tables};
use crate::model::{Frame, Tables};
use crate::nat::PORT_FIRST;
use crate::protocol::{TCP, UDP};
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn flow(nic: u16, family: Family) -> Ends {
    Ends { src: at(Endpoint::Nic(nic), family), sport: 40_000, dst: at(Endpoint::Service, family), dport: 53 }
}

type Make = fn(Ends) -> Frame;

/// First packet, its answer, a later packet of the same flow.
const PROTOCOLS: [(&str, Make, Make, Make); 3] = [
    ("tcp", |e| frames::tcp(e, SYN, b""), |e| frames::tcp(e, SYN | ACK, b""), |e| frames::tcp(e, ACK, b"x")),
    ("udp", |e| frames::udp(e, b"q"), |e| frames::udp(e, b"a"), |e| frames::udp(e, b"qq")),
    (
        "echo",
        |e| frames::echo(e, true, e.sport, b"x"),
        |e| frames::echo(e, false, e.dport, b"x"),
        |e| frames::echo(e, true, e.sport, b"y"),
    ),
];

/// Ports matter for all but echo, whose identifier stands for both.
fn same(a: Option<Ends>, b: Ends) -> bool {
    a.is_some_and(|a| (a.src, a.dst) == (b.src, b.dst) && (a.sport == b.sport || a.sport == b.dport))
}

#[test]
fn both_directions_are_translated() {
    for family in FAMILIES {
        for (name, first, answer, later) in PROTOCOLS {
            for (nic, source) in [(NET1, NET1), (ETH0, NET1), (NET1, NET2)] {
                let tables = tables();
                let e = flow(source, family);
                let what = format!("{name} {family:?} by {nic} from {source}");
                let done = run_egress(&tables, nic, &first(e));
                assert_eq!(done.reason, Reason::NatNew, "{what}");
                let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
                assert!(same(frames::ends(&done.frame), seen), "{what}: {:?}", frames::ends(&done.frame));
                assert!(frames::sums_are_right(&done.frame), "{what}");
                assert_eq!(tables.nat.borrow().len(), 2, "{what}");
                let back = run_ingress(&tables, ETH0, &answer(seen.back()));
                assert_eq!((back.verdict, back.reason), (Verdict::Pass, Reason::TranslatedBack), "{what}");
                assert!(same(frames::ends(&back.frame), e.back()), "{what}");
                assert!(frames::sums_are_right(&back.frame), "{what}");
                assert_eq!(run_egress(&tables, nic, &later(e)).reason, Reason::Translated, "{what}");
                assert_eq!(tables.nat.borrow().len(), 2, "{what}");
                assert!(tables.arrivals.borrow().is_empty(), "{what}: answers are not arrivals");
            }
        }
    }
}

#[test]
fn udp_without_checksum_stays_without() {
    let tables = tables();
    let mut frame = frames::udp(flow(NET1, Family::V4), b"q");
    frame.bytes[40..42].copy_from_slice(&[0, 0]);
    let done = run_egress(&tables, NET1, &frame);
    assert_eq!(done.frame.bytes[40..42], [0, 0]);
    assert!(frames::sums_are_right(&done.frame));
}

#[test]
fn two_nics_with_one_port_get_two_ports() {
    for (_, first, answer, _) in PROTOCOLS {
        let tables = tables();
        let (one, two) = (flow(NET1, Family::V4), flow(NET2, Family::V4));
        assert_eq!(run_egress(&tables, NET1, &first(one)).reason, Reason::NatNew);
        let done = run_egress(&tables, NET2, &first(two));
        assert_eq!(done.reason, Reason::NatPort);
        assert!(frames::sums_are_right(&done.frame));
        let seen = frames::ends(&done.frame).unwrap();
        assert!(seen.sport >= PORT_FIRST);
        let to_two =
            run_ingress(&tables, ETH0, &answer(Ends { dport: seen.sport, sport: seen.dport, ..seen.back() }));
        assert!(same(frames::ends(&to_two.frame), two.back()));
        let to_one = run_ingress(
            &tables,
            ETH0,
            &answer(Ends { src: at(Endpoint::Nic(ETH0), Family::V4), ..one }.back()),
        );
        assert!(same(frames::ends(&to_one.frame), one.back()));
    }
}

fn socket(tables: &mut Tables, protocol: u8, e: Ends) {
    tables.sockets.insert(FlowKey {
        pod: POD,
        protocol,
        tuple: Tuple::Translated as u8,
        local_port: e.sport,
        remote_port: e.dport,
        local: frames::addr(at(Endpoint::Nic(ETH0), Family::V4)),
        remote: frames::addr(e.dst),
    });
}

#[test]
fn a_sockets_port_is_not_taken() {
    for (protocol, (_, first, ..)) in [(TCP, PROTOCOLS[0]), (UDP, PROTOCOLS[1])] {
        let mut tables = tables();
        let e = flow(NET1, Family::V4);
        socket(&mut tables, protocol, e);
        let done = run_egress(&tables, NET1, &first(e));
        assert_eq!(done.reason, Reason::NatPort);
        assert_ne!(frames::ends(&done.frame).unwrap().sport, e.sport);
    }
}

#[test]
fn when_all_tried_ports_are_taken_the_packet_is_kept_off_eth0() {
    let mut tables = tables();
    let e = flow(NET1, Family::V4);
    for port in (PORT_FIRST..=u16::MAX).chain([e.sport]) {
        socket(&mut tables, TCP, Ends { sport: port, ..e });
    }
    let frame = frames::tcp(e, SYN, b"");
    let done = run_egress(&tables, NET1, &frame);
    assert_eq!(done.reason, Reason::NatNoPort);
    assert_eq!(frames::ends(&done.frame), Some(e));
    assert!(tables.nat.borrow().is_empty());
}

/// The entry that another CPU has made first, a moment ago.
#[test]
fn an_incomplete_pair_is_not_replaced() {
    for (age, reason) in [(0, Reason::NatPort), (SECOND - 1, Reason::NatPort), (SECOND, Reason::NatNew)] {
        let mut tables = tables();
        let (mine, other) = (flow(NET1, Family::V4), flow(NET2, Family::V4));
        run_egress(&tables, NET2, &frames::udp(other, b"q"));
        tables.nat.borrow_mut().retain(|key, _| key.is(Tuple::Translated));
        tables.now += age;
        let done = run_egress(&tables, NET1, &frames::udp(mine, b"q"));
        assert_eq!(done.reason, reason, "{age} ns old");
        let seen = Ends { src: at(Endpoint::Nic(ETH0), Family::V4), ..mine };
        let half = tables
            .nat
            .borrow()
            .iter()
            .filter(|(key, _)| key.is(Tuple::Translated) && key.local_port == mine.sport)
            .map(|(_, e)| e.addr)
            .next();
        let owner = if reason == Reason::NatNew { mine } else { other };
        assert_eq!(half, Some(frames::addr(owner.src)));
        assert_eq!(frames::ends(&done.frame).map(|e| e.sport == seen.sport), Some(reason == Reason::NatNew));
    }
}

#[test]
fn a_full_map_gets_both_entries_or_none() {
    let e = flow(NET1, Family::V4);
    for room in [1, 2, 3] {
        let mut tables = tables();
        tables.nat_size = room;
        let done = run_egress(&tables, NET1, &frames::udp(e, b"q"));
        let fits = room >= 2;
        assert_eq!(done.reason, if fits { Reason::NatNew } else { Reason::NatFull });
        assert_eq!(tables.nat.borrow().len(), if fits { 2 } else { 0 }, "both entries or none");
        let other = run_egress(&tables, NET1, &frames::udp(Ends { sport: 40_001, ..e }, b"q"));
        assert_eq!(other.reason, Reason::NatFull);
        assert_eq!(frames::ends(&other.frame), Some(Ends { sport: 40_001, ..e }));
    }
}

#[test]
fn answers_that_nobody_asked_for_are_not_translated() {
    for (_, first, answer, _) in PROTOCOLS {
        let mut tables = tables();
        let e = flow(NET1, Family::V4);
        let seen = Ends { src: at(Endpoint::Nic(ETH0), Family::V4), ..e };
        let early = run_ingress(&tables, ETH0, &answer(seen.back()));
        assert_ne!(early.reason, Reason::TranslatedBack);
        run_egress(&tables, NET1, &first(e));
        let elsewhere = run_ingress(&tables, NET1, &answer(seen.back()));
        assert_ne!(elsewhere.reason, Reason::TranslatedBack, "only eth0 translates back");
        tables.now += 90_000 * SECOND;
        let late = run_ingress(&tables, ETH0, &answer(seen.back()));
        assert_ne!(late.reason, Reason::TranslatedBack);
        assert_eq!(frames::ends(&late.frame), frames::ends(&answer(seen.back())));
    }
}

#[test]
fn a_syn_of_the_other_side_is_not_an_answer() {
    let tables = tables();
    let e = flow(NET1, Family::V4);
    run_egress(&tables, NET1, &frames::tcp(e, SYN, b""));
    let seen = Ends { src: at(Endpoint::Nic(ETH0), Family::V4), ..e };
    assert_eq!(run_ingress(&tables, ETH0, &frames::tcp(seen.back(), SYN, b"")).reason, Reason::ArrivalNew);
}

#[test]
fn translations_end() {
    let e = flow(NET1, Family::V4);
    let seen = Ends { src: at(Endpoint::Nic(ETH0), Family::V4), ..e };
    let table: [(&[(bool, u8)], u64); 6] = [
        (&[(true, SYN)], 60),
        (&[(true, SYN), (false, SYN | ACK)], 86_400),
        (&[(true, SYN), (false, SYN | ACK), (true, FIN | ACK)], 3600),
        (&[(true, SYN), (false, SYN | ACK), (true, FIN | ACK), (false, FIN | ACK)], 60),
        (&[(true, SYN), (false, SYN | ACK), (false, RST)], 10),
        (&[(true, SYN), (false, SYN | ACK), (true, RST)], 10),
    ];
    for (packets, limit) in table {
        let mut tables = tables();
        for &(outbound, flags) in packets {
            if outbound {
                run_egress(&tables, NET1, &frames::tcp(e, flags, b""));
            } else {
                assert_eq!(
                    run_ingress(&tables, ETH0, &frames::tcp(seen.back(), flags, b"")).reason,
                    Reason::TranslatedBack
                );
            }
        }
        tables.now += limit * SECOND;
        let mut alive = tables.clone();
        assert_eq!(
            run_egress(&alive, NET1, &frames::tcp(e, ACK, b"x")).reason,
            Reason::Translated,
            "{packets:?}"
        );
        alive.now = tables.now;
        tables.now += 1;
        assert_eq!(
            run_egress(&tables, NET1, &frames::tcp(e, ACK, b"x")).reason,
            Reason::NatUnknown,
            "{packets:?}"
        );
        assert_eq!(
            run_egress(&tables, NET1, &frames::tcp(e, SYN, b"")).reason,
            Reason::NatNew,
            "{packets:?}"
        );
        assert_eq!(tables.nat.borrow().len(), 2);
    }
}

#[test]
fn a_new_syn_starts_over_with_a_fresh_state() {
    let tables = tables();
    let e = flow(NET1, Family::V4);
    let seen = Ends { src: at(Endpoint::Nic(ETH0), Family::V4), ..e };
    run_egress(&tables, NET1, &frames::tcp(e, SYN, b""));
    run_ingress(&tables, ETH0, &frames::tcp(seen.back(), SYN | ACK, b""));
    run_egress(&tables, NET1, &frames::tcp(e, FIN | ACK, b""));
    run_ingress(&tables, ETH0, &frames::tcp(seen.back(), FIN | ACK, b""));
    let done = run_egress(&tables, NET1, &frames::tcp(e, SYN, b""));
    assert_eq!(done.reason, Reason::Translated);
    assert!(tables.nat.borrow().values().all(|entry| entry.state == 0));
}

#[test]
fn a_direct_flow_with_the_tuple_of_a_closing_translation_takes_it_over() {
    let e = flow(NET1, Family::V4);
    let direct = Ends { src: at(Endpoint::Nic(ETH0), Family::V4), ..e };
    let tables = tables();
    run_egress(&tables, NET1, &frames::tcp(e, SYN, b""));
    let second_pass = run_egress(&tables, ETH0, &frames::tcp(direct, SYN, b""));
    assert_eq!(second_pass.reason, Reason::ClusterDirect, "the translated SYN itself passes eth0 too");
    assert_eq!(tables.nat.borrow().len(), 2);
    run_ingress(&tables, ETH0, &frames::tcp(direct.back(), SYN | ACK, b""));
    assert_eq!(run_egress(&tables, ETH0, &frames::tcp(direct, SYN, b"")).reason, Reason::NatConflict);
    run_egress(&tables, NET1, &frames::tcp(e, FIN | ACK, b""));
    run_ingress(&tables, ETH0, &frames::tcp(direct.back(), FIN | ACK, b""));
    assert_eq!(run_egress(&tables, ETH0, &frames::tcp(direct, SYN, b"")).reason, Reason::ClusterDirect);
    assert!(tables.nat.borrow().is_empty());
    let answer = run_ingress(&tables, ETH0, &frames::tcp(direct.back(), SYN | ACK, b""));
    assert_eq!(answer.reason, Reason::NotOurs);
    assert_eq!(frames::ends(&answer.frame), Some(direct.back()));
}

#[test]
fn a_changed_cluster_address_makes_a_new_translation() {
    let mut tables = tables();
    let e = flow(NET1, Family::V4);
    run_egress(&tables, NET1, &frames::udp(e, b"q"));
    tables.nics.get_mut(&ETH0).unwrap().addr4 = [10, 244, 1, 99];
    let done = run_egress(&tables, NET1, &frames::udp(e, b"q"));
    assert_eq!(frames::ends(&done.frame).unwrap().src.to_string(), "10.244.1.99");
}
