//! Arrivals: which flows are recorded, and that their replies go back by the NIC and to the MAC that they came from.

use super::{run_egress, run_ingress, with_large_mtu};
use crate::flow_state::SECOND;
use crate::headers::{ACK, FIN, Headers, RST, SYN};
use crate::maps::{DEFAULT_NONE, DEFAULT_USED, Direction, FlowKey};
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, NET2, POD, SHARE, at, mac, tables};
use crate::model::{Frame, Tables};
use crate::reason::Reason;
use crate::state::LogEvent;
use crate::verdict::Verdict;

const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0x99, 1];
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// To the pod's address on `nic`, from an overlay pod that comes unmasqueraded.
fn to_pod(nic: u16, family: Family) -> Ends {
    called_by(Endpoint::OverlayPod, nic, family)
}

fn called_by(place: Endpoint, nic: u16, family: Family) -> Ends {
    Ends { src: at(place, family), sport: 33_000, dst: at(Endpoint::Nic(nic), family), dport: 80 }
}

fn from(mac: [u8; 6], mut frame: Frame) -> Frame {
    frame.bytes[6..12].copy_from_slice(&mac);
    frame
}

fn to_by(done: &super::Processed) -> ([u8; 6], Verdict) {
    (<[u8; 6]>::try_from(&done.frame.bytes[..6]).unwrap(), done.verdict)
}

fn redirect(nic: u16) -> Verdict {
    Verdict::Redirect { ifindex: IFINDEX + u32::from(nic) }
}

fn neigh(nic: u16) -> Verdict {
    Verdict::RedirectNeigh { ifindex: IFINDEX + u32::from(nic) }
}

#[test]
fn replies_go_back_by_nic_and_mac() {
    for family in FAMILIES {
        for called in [Endpoint::Nic(NET1), Endpoint::Second(NET1)] {
            let e = Ends { dst: at(called, family), ..to_pod(NET1, family) };
            let flows: [(Frame, Frame); 3] = [
                (frames::tcp(e, SYN, b""), frames::tcp(e.back(), SYN | ACK, b"")),
                (frames::udp(e, b"q"), frames::udp(e.back(), b"a")),
                (frames::echo(e, true, 5, b"x"), frames::echo(e.back(), false, 5, b"x")),
            ];
            // The NIC that the routing table chose for the reply.
            for (leaves, (request, reply)) in
                [ETH0, NET2].into_iter().flat_map(|nic| flows.clone().map(|f| (nic, f)))
            {
                let tables = with_large_mtu();
                let arrived = run_ingress(&tables, NET1, &from(GATEWAY, request));
                assert_eq!(arrived.verdict, Verdict::Pass);
                assert!(
                    matches!(arrived.reason, Reason::ArrivalNew | Reason::ArrivalSeen),
                    "{}",
                    arrived.reason
                );
                let done = run_egress(&tables, leaves, &reply);
                assert_eq!(done.reason, Reason::ReplyRedirected);
                assert_eq!(to_by(&done), (GATEWAY, redirect(NET1)));
                assert_eq!(done.frame.bytes[6..12], mac(NET1));
                assert_eq!(done.frame.bytes[12..], reply.bytes[12..], "only MACs change");
                let here = run_egress(&tables, NET1, &reply);
                assert_eq!((to_by(&here), here.reason), ((GATEWAY, Verdict::Pass), Reason::ReplyHere));
                assert_eq!(here.frame.bytes[12..], reply.bytes[12..], "only MACs change");
            }
        }
    }
}

/// Replies that carry the address that was called leave by the NIC that has it. So tens of thousands of connections by eth0
/// or to the outside do not touch the map.
#[test]
fn what_the_source_decides_is_not_recorded() {
    for family in FAMILIES {
        let table = [
            (Endpoint::Outside, ETH0, frames::tcp as fn(Ends, u8, &[u8]) -> Frame),
            (Endpoint::OverlayPod, ETH0, frames::tcp),
            (Endpoint::Outside, NET1, frames::tcp),
            (Endpoint::Neighbor, NET1, frames::tcp),
        ];
        for (place, nic, make) in table {
            let (tables, e) = (tables(), called_by(place, nic, family));
            assert_eq!(run_ingress(&tables, nic, &make(e, SYN, b"")).reason, Reason::NotOurs);
            let echo = frames::echo(e, true, 5, b"x");
            assert_eq!(run_ingress(&tables, nic, &echo).reason, Reason::NotOurs);
            assert!(tables.arrivals.borrow().is_empty() && tables.usage.borrow().is_empty());
            for leaves in [ETH0, NET1, NET2].into_iter().filter(|leaves| *leaves != nic) {
                let done = run_egress(&tables, leaves, &frames::tcp(e.back(), SYN | ACK, b""));
                let want = if nic == ETH0 { redirect(ETH0) } else { neigh(NET1) };
                assert_eq!(done.verdict, want, "{place:?} called {nic}, left by {leaves}");
            }
        }
        // Datagrams too, where the answer's source is right anyway.
        let steered = frames::udp(called_by(Endpoint::OverlayPod, ETH0, family), b"q");
        assert_eq!(run_ingress(&tables(), ETH0, &steered).reason, Reason::NotOurs);
        let by_default = if family == Family::V4 { ETH0 } else { NET1 };
        let outside = frames::udp(called_by(Endpoint::Outside, by_default, family), b"q");
        assert_eq!(run_ingress(&tables(), by_default, &outside).reason, Reason::NotOurs);
    }
}

/// Off the link of a pool that names no gateway.
#[test]
fn without_a_gateway_replies_go_to_the_last_sender() {
    for family in FAMILIES {
        let mut tables = with_large_mtu();
        let net1 = tables.nics.get_mut(&NET1).unwrap();
        (net1.default4, net1.default6) = (DEFAULT_NONE, DEFAULT_NONE);
        let e = called_by(Endpoint::Outside, NET1, family);
        for (request, reply) in [
            (frames::tcp(e, SYN, b""), frames::tcp(e.back(), SYN | ACK, b"")),
            (frames::echo(e, true, 5, b"x"), frames::echo(e.back(), false, 5, b"x")),
        ] {
            assert_eq!(run_ingress(&tables, NET1, &from(GATEWAY, request)).reason, Reason::ArrivalNew);
            assert_eq!(to_by(&run_egress(&tables, ETH0, &reply)), (GATEWAY, redirect(NET1)));
        }
    }
}

#[test]
fn a_service_does_not_call() {
    for family in FAMILIES {
        let e = called_by(Endpoint::Service, NET1, family);
        for frame in [frames::tcp(e, SYN, b""), frames::udp(e, b"x"), frames::echo(e, true, 5, b"x")] {
            let tables = tables();
            assert_eq!(run_ingress(&tables, NET1, &frame).reason, Reason::NotOurs);
            assert!(tables.arrivals.borrow().is_empty());
        }
    }
}

#[test]
fn a_new_flow_of_the_pod_is_no_reply() {
    for family in FAMILIES {
        let (tables, e) = (tables(), to_pod(NET1, family));
        run_ingress(&tables, NET1, &from(GATEWAY, frames::tcp(e, SYN, b"")));
        let done = run_egress(&tables, ETH0, &frames::tcp(e.back(), SYN, b""));
        assert_eq!(done.reason, Reason::NatNew);
        assert!(tables.arrivals.borrow().is_empty(), "the old entry is gone");
        assert_eq!(tables.usage.borrow()[&POD].arrivals, 0);
        run_ingress(&tables, NET1, &from(GATEWAY, frames::echo(e, true, 5, b"x")));
        let done = run_egress(&tables, ETH0, &frames::echo(e.back(), true, 5, b"x"));
        assert_eq!(done.reason, Reason::NatNew);
    }
}

#[test]
fn only_a_syn_starts_a_tcp_flow() {
    let tables = tables();
    for flags in [ACK, SYN | ACK, FIN | ACK, RST, 0] {
        let done = run_ingress(&tables, NET1, &frames::tcp(to_pod(NET1, Family::V4), flags, b""));
        assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NotOurs));
    }
    assert!(tables.arrivals.borrow().is_empty());
}

#[test]
fn the_gateway_may_change_but_not_the_nic() {
    let other = [2, 0, 0, 0, 0x99, 2];
    let tables = tables();
    let e = to_pod(NET1, Family::V4);
    run_ingress(&tables, NET1, &from(GATEWAY, frames::tcp(e, SYN, b"")));
    run_ingress(&tables, NET1, &from(other, frames::tcp(e, ACK, b"")));
    let reply = frames::tcp(e.back(), ACK, b"x");
    assert_eq!(to_by(&run_egress(&tables, ETH0, &reply)), (other, redirect(NET1)));
    let elsewhere = run_ingress(&tables, NET2, &from(GATEWAY, frames::tcp(e, ACK, b"")));
    assert_eq!(elsewhere.reason, Reason::NotOurs);
    assert_eq!(to_by(&run_egress(&tables, ETH0, &reply)), (other, redirect(NET1)));
}

/// Its gateway may have failed over to another MAC meanwhile, which the kernel knows.
#[test]
fn who_is_silent_is_reached_by_the_kernels_next_hop() {
    for family in FAMILIES {
        let mut tables = tables();
        tables.wildcard = true;
        let e = called_by(Endpoint::Outside, NET2, family);
        let answer = frames::udp(Ends { src: at(Endpoint::Nic(ETH0), family), ..e.back() }, b"news");
        run_ingress(&tables, NET2, &from(GATEWAY, frames::udp(e, b"subscribe")));
        for second in 1..400 {
            tables.now += SECOND;
            let done = run_egress(&tables, ETH0, &answer);
            let want = if second > 2 { neigh(NET2) } else { redirect(NET2) };
            assert_eq!((done.verdict, done.reason), (want, Reason::ReplySource), "after {second} s");
        }
        run_ingress(&tables, NET2, &from([2; 6], frames::udp(e, b"again")));
        assert_eq!(to_by(&run_egress(&tables, ETH0, &answer)), ([2; 6], redirect(NET2)));
        // Without a gateway of its own there is nobody but the last sender.
        let net2 = tables.nics.get_mut(&NET2).unwrap();
        (net2.default4, net2.default6) = (DEFAULT_NONE, DEFAULT_NONE);
        tables.now += 100 * SECOND;
        assert_eq!(to_by(&run_egress(&tables, ETH0, &answer)), ([2; 6], redirect(NET2)));
        tables.now += 181 * SECOND;
        assert_ne!(run_egress(&tables, ETH0, &answer).reason, Reason::ReplySource);
    }
}

/// To an overlay pod of another node that came unmasqueraded the gateway knows no way, and the kernel's own is by eth0.
#[test]
fn who_is_steered_and_silent_is_reached_by_the_last_sender() {
    for family in FAMILIES {
        let e = to_pod(NET1, family);
        for (request, reply) in [
            (frames::udp(e, b"q"), frames::udp(e.back(), b"a")),
            (frames::tcp(e, SYN, b""), frames::tcp(e.back(), SYN | ACK, b"")),
        ] {
            let mut tables = with_large_mtu();
            run_ingress(&tables, NET1, &from(GATEWAY, request));
            tables.now += 40 * SECOND;
            assert_eq!(to_by(&run_egress(&tables, ETH0, &reply)), (GATEWAY, redirect(NET1)));
        }
    }
}

/// One datagram in the name of somebody who talks to the pod's server by eth0 or by the node, or talks to another address of it later.
#[test]
fn a_wildcard_servers_answers_follow_its_caller_and_not_who_borrows_its_name() {
    const FORGER: [u8; 6] = [2, 0, 0, 0, 0x66, 6];
    for family in FAMILIES {
        let mut tables = tables();
        tables.wildcard = true;
        // The forger first: the caller's next call, which needs no entry, sets it right.
        let (forged, call) = (to_pod(NET1, family), to_pod(ETH0, family));
        run_ingress(&tables, NET1, &from(FORGER, frames::udp(forged, b"x")));
        run_ingress(&tables, ETH0, &frames::udp(call, b"q"));
        let answer = frames::udp(call.back(), b"a");
        let done = run_egress(&tables, ETH0, &answer);
        assert_eq!((done.verdict, frames::ends(&done.frame)), (Verdict::Pass, Some(call.back())));
        // And later it diverts nothing, until the caller has been silent for long.
        for second in 0..200 {
            tables.now += SECOND;
            run_ingress(&tables, NET1, &from(FORGER, frames::udp(forged, b"x")));
            let done = run_egress(&tables, ETH0, &answer);
            let is_diverted = frames::ends(&done.frame) != Some(call.back());
            assert_eq!(is_diverted, second >= 180, "after {second} s");
        }
    }
}

#[test]
fn udp_servers_on_the_wildcard_address_answer_by_the_address_that_was_called() {
    for family in FAMILIES {
        for (place, called, leaves) in [
            (Endpoint::OverlayPod, NET1, ETH0),
            (Endpoint::Outside, NET1, ETH0),
            (Endpoint::Outside, ETH0, NET1),
            (Endpoint::Neighbor, ETH0, NET1),
            (Endpoint::Outside, NET2, NET2),
        ] {
            let mut tables = tables();
            // The route back is by another NIC than the one that was called.
            let nic = tables.nics.get_mut(&called).unwrap();
            (nic.default4, nic.default6) = (1, 1);
            let e = called_by(place, called, family);
            run_ingress(&tables, called, &from(GATEWAY, frames::udp(e, b"q")));
            // The kernel took the address of the NIC that it routed by.
            let wrong = if leaves == called { ETH0 } else { leaves };
            let reply = frames::udp(Ends { src: at(Endpoint::Nic(wrong), family), ..e.back() }, b"a");
            let bound = run_egress(&tables, leaves, &reply);
            assert_ne!(bound.reason, Reason::ReplySource, "a bound socket means what it says");
            tables.wildcard = true;
            let done = run_egress(&tables, leaves, &reply);
            assert_eq!(done.reason, Reason::ReplySource, "{place:?} called {called}");
            let want = if called == leaves { Verdict::Pass } else { redirect(called) };
            assert_eq!(done.verdict, want);
            assert_eq!(frames::ends(&done.frame), Some(e.back()));
            assert!(frames::sums_are_right(&done.frame));
            // One that the kernel has given the right address is as it should be.
            let right = frames::udp(e.back(), b"a");
            let done = run_egress(&tables, called, &right);
            assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::ReplyHere));
            assert_eq!(frames::ends(&done.frame), Some(e.back()));
            let by_other = run_egress(&tables, if called == NET1 { ETH0 } else { NET1 }, &right);
            assert_eq!((by_other.verdict, by_other.reason), (redirect(called), Reason::ReplyRedirected));
        }
    }
}

/// By its source alone it would leave by the other NIC, and so would its later fragments.
#[test]
fn a_call_of_another_nics_address_is_answered_where_it_came_in() {
    for family in FAMILIES {
        let mut tables = tables();
        tables.wildcard = true;
        let e = called_by(Endpoint::Outside, NET2, family);
        run_ingress(&tables, NET1, &from(GATEWAY, frames::udp(e, b"q")));
        let done = run_egress(&tables, NET1, &frames::udp(e.back(), b"a"));
        assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::ReplySource));
        assert_eq!(frames::ends(&done.frame), Some(e.back()));
    }
}

/// A datagram of a forger in the underlay from `place` to a port of the pod, before and while the pod asks there by a socket
/// without local address.
fn forged_then_asked(tables: &mut Tables, e: Ends, by: u16) -> [(Verdict, Reason); 2] {
    tables.wildcard = true;
    let family = if e.src.is_ipv4() { Family::V4 } else { Family::V6 };
    let query = frames::udp(Ends { src: at(Endpoint::Nic(by), family), ..e.back() }, b"q");
    let asked = || {
        run_ingress(tables, NET1, &frames::udp(e, b"forged"));
        let done = run_egress(tables, by, &query);
        (done.verdict, done.reason)
    };
    [asked(), asked()]
}

#[test]
fn forged_datagrams_divert_no_query_of_an_ephemeral_port() {
    for family in FAMILIES {
        for place in
            [Endpoint::Service, Endpoint::OverlayPod, Endpoint::Node, Endpoint::Outside, Endpoint::Neighbor]
        {
            for (by, ports) in
                [(ETH0, None), (NET1, None), (ETH0, Some((1024, 65_535))), (ETH0, Some((2000, 2100)))]
            {
                let mut tables = tables();
                for nic in tables.nics.values_mut() {
                    (nic.port_low, nic.port_high) = ports.unwrap_or((nic.port_low, nic.port_high));
                }
                let (low, sport) = (tables.nics[&NET1].port_low, 53);
                let e = Ends { sport, dport: low + 7, ..called_by(place, NET1, family) };
                let before = {
                    let query = Ends { src: at(Endpoint::Nic(by), family), ..e.back() };
                    let done = run_egress(&tables, by, &frames::udp(query, b"q"));
                    (done.verdict, done.reason)
                };
                for asked in forged_then_asked(&mut tables, e, by) {
                    let is_same =
                        asked.0 == before.0 && asked.1 != Reason::ReplySource && asked.1 != Reason::ReplyHere;
                    assert!(is_same, "{place:?} by {by}: {asked:?} for {before:?}");
                }
                assert!(tables.arrivals.borrow().is_empty());
            }
        }
    }
}

/// NTP from 123 to 123: an answer looks like a call. It is none where the pod has spoken first.
#[test]
fn on_fixed_ports_who_has_spoken_first_decides() {
    for family in FAMILIES {
        for place in [Endpoint::OverlayPod, Endpoint::Node, Endpoint::Outside] {
            for by in [ETH0, NET1] {
                let mut tables = tables();
                let e = Ends { sport: 123, dport: 123, ..called_by(place, NET1, family) };
                tables.wildcard = true;
                let query = frames::udp(Ends { src: at(Endpoint::Nic(by), family), ..e.back() }, b"q");
                let first = run_egress(&tables, by, &query);
                for _ in 0..100 {
                    tables.now += 30 * SECOND;
                    let forged = run_ingress(&tables, NET1, &frames::udp(e, b"forged"));
                    assert!(matches!(forged.reason, Reason::OwnFlow | Reason::NotOurs), "{}", forged.reason);
                    let next = run_egress(&tables, by, &query);
                    // The server answers where it was asked: translated to eth0.
                    let is_translated = by == NET1 && place != Endpoint::Outside;
                    let seen = if is_translated { ETH0 } else { by };
                    let answer = Ends { dst: at(Endpoint::Nic(seen), family), ..e };
                    run_ingress(&tables, seen, &frames::udp(answer, b"a"));
                    assert_eq!(next.verdict, first.verdict, "{place:?} by {by}: {}", next.reason);
                    assert_ne!(next.reason, Reason::ReplySource);
                }
                tables.now += 181 * SECOND;
                let by_default = place == Endpoint::Outside
                    && tables.nics[&NET1].default_route(frames::addr(e.src)) == DEFAULT_USED;
                let called = run_ingress(&tables, NET1, &frames::udp(e, b"call")).reason;
                assert_eq!(called == Reason::NotOurs, by_default, "{place:?}: it is a server again");
            }
        }
    }
}

/// Somebody in the underlay sends to net1's MAC in the name of whom the pod talks to.
#[test]
fn a_connection_that_the_pod_has_begun_is_not_diverted() {
    for family in FAMILIES {
        for place in [Endpoint::OverlayPod, Endpoint::Outside] {
            let e = Ends { sport: 443, ..called_by(place, NET1, family) };
            for segment in [frames::tcp(e, SYN, b""), frames::tcp(e, ACK, b"x"), frames::udp(e, b"x")] {
                let mut tables = tables();
                let mut h = Headers::default();
                crate::headers::parse(&segment, &mut h);
                tables.connected.insert(FlowKey::of(POD, &h, Direction::Ingress));
                run_ingress(&tables, NET1, &segment);
                assert!(tables.arrivals.borrow().is_empty(), "{:?}", segment.bytes);
            }
        }
    }
}

#[test]
fn flows_close_and_expire() {
    let e = to_pod(NET1, Family::V4);
    let reply = frames::tcp(e.back(), ACK, b"x");
    // Packets that come in (true) or go out by net1, then idle seconds that end the flow.
    let table: [(&[(bool, u8)], u64); 6] = [
        (&[(true, SYN)], 60),
        (&[(true, SYN), (true, ACK)], 86_400),
        (&[(true, SYN), (true, ACK), (true, FIN | ACK)], 3600),
        (&[(true, SYN), (true, ACK), (true, FIN | ACK), (false, FIN | ACK)], 10),
        (&[(true, SYN), (true, ACK), (true, RST)], 10),
        (&[(true, SYN), (true, ACK), (true, RST), (true, ACK)], 86_400),
    ];
    for (packets, limit) in table {
        let mut tables = tables();
        for &(inbound, flags) in packets {
            if inbound {
                run_ingress(&tables, NET1, &frames::tcp(e, flags, b""));
            } else {
                run_egress(&tables, NET1, &frames::tcp(e.back(), flags, b""));
            }
        }
        tables.now += limit * SECOND;
        assert_eq!(run_egress(&tables.clone(), ETH0, &reply).reason, Reason::ReplyRedirected, "{packets:?}");
        tables.now += 1;
        // Without an entry it leaves by its own NIC all the same, and never by eth0.
        let late = run_egress(&tables, ETH0, &reply);
        assert_eq!((late.verdict, late.reason), (neigh(NET1), Reason::NatUnknown), "{packets:?}");
    }
}

/// A RST that the pod's socket does not take.
#[test]
fn a_forged_reset_does_not_cut_a_flow() {
    let mut tables = tables();
    let e = to_pod(NET1, Family::V4);
    let (syn, mut h) = (frames::tcp(e, SYN, b""), Headers::default());
    crate::headers::parse(&syn, &mut h);
    tables.refuses_reset.insert(FlowKey::of(POD, &h, Direction::Ingress));
    for flags in [SYN, ACK, RST] {
        run_ingress(&tables, NET1, &frames::tcp(e, flags, b""));
    }
    tables.now += 1000 * SECOND;
    assert_eq!(run_egress(&tables, ETH0, &frames::tcp(e.back(), ACK, b"x")).reason, Reason::ReplyRedirected);
}

#[test]
fn a_forged_syn_does_not_divert_an_open_connection() {
    for family in FAMILIES {
        for (mac, nic) in [([2, 0, 0, 0, 0x66, 6], NET1), (GATEWAY, NET2)] {
            let tables = tables();
            let e = to_pod(NET1, family);
            for flags in [SYN, ACK] {
                run_ingress(&tables, NET1, &from(GATEWAY, frames::tcp(e, flags, b"")));
            }
            let before = tables.arrivals.borrow().clone();
            run_ingress(&tables, nic, &from(mac, frames::tcp(e, SYN, b"")));
            assert_eq!(*tables.arrivals.borrow(), before);
            for flags in [RST, SYN, ACK] {
                run_ingress(&tables, NET2, &from(mac, frames::tcp(e, flags, b"")));
            }
            assert_eq!(*tables.arrivals.borrow(), before, "nor together with a RST and an ACK");
            let reply = frames::tcp(e.back(), ACK, b"x");
            assert_eq!(to_by(&run_egress(&tables, ETH0, &reply)), (GATEWAY, redirect(NET1)));
        }
    }
}

#[test]
fn what_is_for_others_is_not_recorded() {
    for family in FAMILIES {
        let e = to_pod(NET1, family);
        let makes: [fn(Ends) -> Frame; 3] =
            [|e| frames::tcp(e, SYN, b""), |e| frames::udp(e, b"q"), |e| frames::echo(e, true, 5, b"x")];
        for make in makes {
            let tables = tables();
            let flooded = Frame { for_other_host: true, ..make(e) };
            assert_eq!(run_ingress(&tables, NET1, &flooded).reason, Reason::NotOurs, "another machine's MAC");
            for dst in [Endpoint::Neighbor, Endpoint::Foreign] {
                let done = run_ingress(&tables, NET1, &make(Ends { dst: at(dst, family), ..e }));
                assert_eq!(done.reason, Reason::NotOurs, "{dst:?} is not the pod's");
            }
            assert!(tables.arrivals.borrow().is_empty());
            for dst in [NET1, NET2] {
                run_ingress(&tables, NET1, &make(Ends { dst: at(Endpoint::Nic(dst), family), ..e }));
            }
            assert!(tables.arrivals.borrow().len() >= 2);
        }
        // An underlay address that is called by the cluster NIC cannot be answered there.
        let by_eth0 =
            run_ingress(&tables(), ETH0, &frames::udp(called_by(Endpoint::Outside, NET1, family), b"q"));
        assert_eq!(by_eth0.reason, Reason::NotOurs);
    }
}

#[test]
fn a_closed_connection_is_replaced_by_the_next() {
    let e = to_pod(NET1, Family::V4);
    let other = [2, 0, 0, 0, 0x99, 2];
    let endings: [&[(bool, u8)]; 2] = [&[(false, RST)], &[(true, FIN | ACK), (false, FIN | ACK)]];
    for ending in endings {
        let tables = tables();
        for &(inbound, flags) in [(true, SYN), (true, ACK)].iter().chain(ending) {
            if inbound {
                run_ingress(&tables, NET1, &from(GATEWAY, frames::tcp(e, flags, b"")));
            } else {
                run_egress(&tables, NET1, &frames::tcp(e.back(), flags, b""));
            }
        }
        run_ingress(&tables, NET1, &from(other, frames::tcp(e, SYN, b"")));
        let answer = frames::tcp(e.back(), SYN | ACK, b"");
        assert_eq!(to_by(&run_egress(&tables, ETH0, &answer)), (other, redirect(NET1)));
    }
}

#[test]
fn who_ends_the_handshake_gets_the_replies() {
    let tables = tables();
    let e = to_pod(NET1, Family::V4);
    run_ingress(&tables, NET1, &from(GATEWAY, frames::tcp(e, SYN, b"")));
    run_ingress(&tables, NET2, &from([2, 0, 0, 0, 0x66, 6], frames::tcp(e, SYN, b"")));
    run_ingress(&tables, NET1, &from(GATEWAY, frames::tcp(e, ACK, b"")));
    let reply = frames::tcp(e.back(), ACK, b"x");
    assert_eq!(to_by(&run_egress(&tables, ETH0, &reply)), (GATEWAY, redirect(NET1)));
}

#[test]
fn replies_of_a_removed_nic_pass() {
    let mut tables = tables();
    let e = to_pod(NET1, Family::V4);
    run_ingress(&tables, NET1, &frames::tcp(e, SYN, b""));
    tables.nics.remove(&NET1);
    let done = run_egress(&tables, ETH0, &frames::tcp(e.back(), SYN | ACK, b""));
    assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::ForeignSource));
}

/// Datagrams from outside, which cost nothing to forge, leave half of the share to connections; what no longer fits is said.
#[test]
fn a_share_that_is_used_up_costs_that_pod_new_entries_only() {
    let tables = tables();
    let outside = called_by(Endpoint::Outside, NET2, Family::V4);
    let flood = |port| frames::udp(Ends { sport: port, ..outside }, b"x");
    for port in 1..=1000 {
        let want =
            if u32::from(port) <= SHARE.arrivals / 2 { Reason::ArrivalNew } else { Reason::ArrivalsFull };
        assert_eq!(run_ingress(&tables, NET2, &flood(port)).reason, want, "{port}");
    }
    assert!(tables.events.borrow().contains(&LogEvent::ArrivalsFull));
    assert_eq!(run_ingress(&tables, NET2, &flood(1)).reason, Reason::ArrivalSeen);
    let e = to_pod(NET1, Family::V4);
    for port in 1..=1000 {
        run_ingress(&tables, NET1, &frames::tcp(Ends { sport: port, ..e }, SYN, b""));
    }
    assert_eq!(tables.arrivals.borrow().len(), SHARE.arrivals as usize);
    let reply = frames::tcp(Ends { sport: 1, ..e }.back(), SYN | ACK, b"");
    assert_eq!(run_egress(&tables, ETH0, &reply).verdict, redirect(NET1));
}
