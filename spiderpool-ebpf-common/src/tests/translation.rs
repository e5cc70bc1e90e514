//! Translation: there and back, ports that are taken, no room, ends of flows.

use super::{run_egress, run_ingress};
use crate::flow_state::SECOND;
use crate::headers::{ACK, FIN, RST, SYN};
use crate::maps::{FlowKey, Tuple};
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, NET1, NET2, POD, SHARE, at, tables};
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
    run_ingress(&tables, ETH0, &frames::tcp(seen.back(), SYN | ACK, b""));
    assert_eq!(run_ingress(&tables, ETH0, &frames::tcp(seen.back(), SYN, b"")).reason, Reason::NotOurs);
}

/// Both sides open the connection at once: their SYNs cross.
#[test]
fn a_simultaneous_open_is_one_connection() {
    for family in FAMILIES {
        let (tables, e) = (tables(), flow(NET1, family));
        let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
        for (outbound, flags) in
            [(true, SYN), (false, SYN), (true, SYN | ACK), (false, SYN | ACK), (true, ACK)]
        {
            let done = if outbound {
                run_egress(&tables, NET1, &frames::tcp(e, flags, b""))
            } else {
                run_ingress(&tables, ETH0, &frames::tcp(seen.back(), flags, b""))
            };
            let ends = if outbound { seen } else { e.back() };
            assert_eq!(frames::ends(&done.frame), Some(ends), "{outbound} {flags:#x}");
        }
        assert_eq!(tables.nat.borrow().len(), 2);
    }
}

#[test]
fn translations_end() {
    let e = flow(NET1, Family::V4);
    let seen = Ends { src: at(Endpoint::Nic(ETH0), Family::V4), ..e };
    let table: [(&[(bool, u8)], u64); 6] = [
        (&[(true, SYN)], 60),
        (&[(true, SYN), (false, SYN | ACK)], 86_400),
        (&[(true, SYN), (false, SYN | ACK), (true, FIN | ACK)], 3600),
        (&[(true, SYN), (false, SYN | ACK), (true, FIN | ACK), (false, FIN | ACK)], 10),
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
    let translated = run_egress(&tables, NET1, &frames::tcp(e, SYN, b""));
    let second_pass = run_egress(&tables, ETH0, &translated.frame);
    assert_eq!(second_pass.reason, Reason::ClusterDirect, "the translated SYN itself passes eth0 too");
    assert!(!second_pass.frame.decided, "the mark does not leave the pod");
    assert_eq!(tables.nat.borrow().len(), 2);
    run_ingress(&tables, ETH0, &frames::tcp(direct.back(), SYN | ACK, b""));
    run_egress(&tables, NET1, &frames::tcp(e, FIN | ACK, b""));
    run_ingress(&tables, ETH0, &frames::tcp(direct.back(), FIN | ACK, b""));
    assert_eq!(run_egress(&tables, ETH0, &frames::tcp(direct, SYN, b"")).reason, Reason::ClusterDirect);
    assert!(tables.nat.borrow().is_empty());
    let answer = run_ingress(&tables, ETH0, &frames::tcp(direct.back(), SYN | ACK, b""));
    assert_eq!(answer.reason, Reason::NotOurs);
    assert_eq!(frames::ends(&answer.frame), Some(direct.back()));
}

/// Two sockets of the pod with the same port and destination, one of them translated: each gets its own answers.
#[test]
fn a_direct_flow_with_the_tuple_of_a_translation_gets_another_port() {
    for family in FAMILIES {
        for (name, first, answer, later) in PROTOCOLS {
            for leaves in [ETH0, NET1] {
                let tables = tables();
                let e = flow(NET1, family);
                let direct = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
                assert_eq!(run_egress(&tables, NET1, &first(e)).reason, Reason::NatNew);
                let new = run_egress(&tables, leaves, &first(direct));
                assert_eq!(new.reason, Reason::NatConflict, "{name}");
                assert!(frames::sums_are_right(&new.frame));
                let seen = frames::ends(&new.frame).unwrap();
                assert!(seen.sport >= PORT_FIRST && seen.src == direct.src, "{name}: {seen:?}");
                // Each answer finds its socket.
                let back = Ends {
                    dport: seen.sport,
                    sport: if name == "echo" { seen.sport } else { seen.dport },
                    ..seen.back()
                };
                let to_direct = run_ingress(&tables, ETH0, &answer(back));
                assert!(same(frames::ends(&to_direct.frame), direct.back()), "{name}");
                let to_translated = run_ingress(&tables, ETH0, &answer(direct.back()));
                assert!(same(frames::ends(&to_translated.frame), e.back()), "{name}");
                assert_eq!(run_egress(&tables, leaves, &later(direct)).reason, Reason::Translated, "{name}");
                let other = run_egress(&tables, leaves, &later(Ends { sport: 40_001, ..direct }));
                let want = if leaves == ETH0 { Reason::ClusterDirect } else { Reason::Steered };
                assert_eq!(other.reason, want, "{name}: no other flow is touched");
            }
        }
    }
}

/// What is no longer steered: flows that are translated go on, new ones leave by their own NIC.
#[test]
fn translated_flows_outlive_their_cidr() {
    for family in FAMILIES {
        for (name, first, answer, later) in PROTOCOLS {
            let (mut tables, e) = (tables(), flow(NET1, family));
            let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
            run_egress(&tables, NET1, &first(e));
            tables.cidrs.retain(|(_, _, entry)| entry.kind != crate::maps::CidrKind::Service as u8);
            tables.nics.values_mut().for_each(|nic| nic.keeps_translations = 1);
            for nic in [NET1, ETH0] {
                assert_eq!(run_egress(&tables, nic, &later(e)).reason, Reason::Translated, "{name} by {nic}");
            }
            assert_eq!(run_ingress(&tables, ETH0, &answer(seen.back())).reason, Reason::TranslatedBack);
            let new = run_egress(&tables, NET1, &first(Ends { sport: 40_001, ..e }));
            assert_eq!((new.verdict, new.reason), (Verdict::Pass, Reason::NotOurs), "{name}");
        }
    }
}

/// And the other way round: a connection by net1 goes on when its destination is steered from now on.
#[test]
fn connections_by_the_underlay_outlive_a_new_cidr() {
    for family in FAMILIES {
        let (tables, e) = (tables(), flow(NET1, family));
        for flags in [ACK, FIN | ACK, RST] {
            let done = run_egress(&tables, NET1, &frames::tcp(e, flags, b"x"));
            assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NatUnknown));
        }
    }
}

/// A RST that the pod's socket does not take, and then silence.
#[test]
fn a_forged_reset_does_not_cut_a_translated_flow() {
    for family in FAMILIES {
        let (mut tables, e) = (tables(), flow(NET1, family));
        let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
        run_egress(&tables, NET1, &frames::tcp(e, SYN, b""));
        run_ingress(&tables, ETH0, &frames::tcp(seen.back(), SYN | ACK, b""));
        let original = *tables.nat.borrow().keys().find(|key| key.is(Tuple::Original)).unwrap();
        tables.refuses_reset.insert(original);
        run_ingress(&tables, ETH0, &frames::tcp(seen.back(), RST, b""));
        tables.now += 3000 * SECOND;
        assert_eq!(run_egress(&tables, NET1, &frames::tcp(e, ACK, b"x")).reason, Reason::Translated);
        tables.now += 80_000 * SECOND;
        let late = run_ingress(&tables, ETH0, &frames::tcp(seen.back(), ACK, b"x"));
        assert_eq!(late.reason, Reason::TranslatedBack, "it was forged, so it does not count any more");
    }
}

#[test]
fn a_share_that_is_used_up_costs_that_pod_new_translations_only() {
    let tables = tables();
    let e = flow(NET1, Family::V4);
    let flows = SHARE.nat / 2;
    for port in 1..=1000 {
        let done = run_egress(&tables, NET1, &frames::udp(Ends { sport: port, ..e }, b"q"));
        let want = if u32::from(port) <= flows { Reason::NatNew } else { Reason::NatFull };
        assert_eq!(done.reason, want, "{port}");
    }
    assert_eq!(tables.nat.borrow().len(), SHARE.nat as usize);
    assert_eq!(
        run_egress(&tables, NET1, &frames::udp(Ends { sport: 1, ..e }, b"q")).reason,
        Reason::Translated
    );
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

/// Somebody pings the pod with the identifier of a ping of the pod's own, which is translated: the reply is none of that flow.
#[test]
fn an_echo_reply_is_of_no_translated_flow() {
    for family in FAMILIES {
        let tables = tables();
        let own = flow(NET1, family);
        assert_eq!(run_egress(&tables, NET1, &frames::echo(own, true, 5, b"x")).reason, Reason::NatNew);
        let done = run_egress(&tables, NET1, &frames::echo(own, false, 5, b"x"));
        assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NatUnknown), "{family:?}");
        assert_eq!(done.frame.bytes, frames::echo(own, false, 5, b"x").bytes, "{family:?}");
    }
}

/// The same where the pod's ping has eth0's address, and another identifier because a translated one has its own.
#[test]
fn an_echo_reply_keeps_its_identifier() {
    for family in FAMILIES {
        let tables = tables();
        let (translated, direct) = (flow(NET1, family), flow(ETH0, family));
        run_egress(&tables, NET1, &frames::echo(translated, true, 5, b"x"));
        assert_eq!(
            run_egress(&tables, ETH0, &frames::echo(direct, true, 5, b"x")).reason,
            Reason::NatConflict
        );
        let reply = frames::echo(direct, false, 5, b"x");
        let done = run_egress(&tables, ETH0, &reply);
        assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::ClusterDirect), "{family:?}");
        assert_eq!(done.frame.bytes, reply.bytes, "{family:?}");
    }
}
