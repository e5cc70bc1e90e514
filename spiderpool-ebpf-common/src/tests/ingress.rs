//! Arrivals: replies go back by the NIC and to the MAC that the request came from.

use super::{run, run_egress, run_ingress, with_large_mtu};
use crate::flow_state::SECOND;
use crate::headers::{ACK, FIN, RST, SYN};
use crate::maps::{Direction, FlowKey};
use crate::model::Frame;
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, NET2, POD, SP0, at, mac, peer, tables};
use crate::model::traffic::Program;
use crate::reason::Reason;
use crate::verdict::Verdict;

const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0x99, 1];
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// From outside to the pod's address on `nic`.
fn to_pod(nic: u16, family: Family) -> Ends {
    Ends { src: at(Endpoint::Outside, family), sport: 33_000, dst: at(Endpoint::Nic(nic), family), dport: 80 }
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

#[test]
fn replies_go_back_by_nic_and_mac() {
    for family in FAMILIES {
        // Arrival, address called, NIC that the routing table chose for the reply.
        for (came, called, leaves) in
            [(NET1, NET1, ETH0), (NET1, NET1, NET2), (SP0, NET1, ETH0), (ETH0, ETH0, NET1)]
        {
            let e = to_pod(called, family);
            let flows: [(Frame, Frame); 3] = [
                (frames::tcp(e, SYN, b""), frames::tcp(e.back(), SYN | ACK, b"")),
                (frames::udp(e, b"q"), frames::udp(e.back(), b"a")),
                (frames::echo(e, true, 5, b"x"), frames::echo(e.back(), false, 5, b"x")),
            ];
            for (request, reply) in flows {
                let tables = with_large_mtu();
                let arrived = run_ingress(&tables, came, &from(GATEWAY, request));
                assert_eq!((arrived.verdict, arrived.reason), (Verdict::Pass, Reason::ArrivalNew));
                let done = run_egress(&tables, leaves, &reply);
                assert_eq!(done.reason, Reason::ReplyRedirected);
                let mac_of = if came == NET1 { GATEWAY } else { peer(came) };
                assert_eq!(to_by(&done), (mac_of, redirect(came)));
                assert_eq!(done.frame.bytes[6..12], mac(came));
                assert_eq!(done.frame.bytes[12..], reply.bytes[12..], "only MACs change");
                let here = run_egress(&tables, came, &reply);
                let want = if came == SP0 { Reason::NodeLink } else { Reason::ReplyHere };
                assert_eq!((here.verdict, here.reason, here.frame), (Verdict::Pass, want, reply));
            }
        }
    }
}

#[test]
fn replies_of_a_second_address_go_back_by_nic_and_mac() {
    for family in FAMILIES {
        for came in [NET1, SP0] {
            let e = Ends { dst: at(Endpoint::Second(NET1), family), ..to_pod(NET1, family) };
            let tables = tables();
            run_ingress(&tables, came, &from(GATEWAY, frames::tcp(e, SYN, b"")));
            let done = run_egress(&tables, ETH0, &frames::tcp(e.back(), SYN | ACK, b""));
            assert_eq!(to_by(&done), (if came == NET1 { GATEWAY } else { peer(came) }, redirect(came)));
        }
    }
}

#[test]
fn a_new_flow_of_the_pod_is_no_reply() {
    let tables = tables();
    let e = to_pod(NET1, Family::V4);
    run_ingress(&tables, NET1, &from(GATEWAY, frames::tcp(e, SYN, b"")));
    let done = run_egress(&tables, ETH0, &frames::tcp(e.back(), SYN, b""));
    assert_eq!(done.reason, Reason::BySource);
    assert!(tables.arrivals.borrow().is_empty(), "the old entry is gone");
    run_ingress(&tables, NET1, &from(GATEWAY, frames::echo(e, true, 5, b"x")));
    let done = run_egress(&tables, ETH0, &frames::echo(e.back(), true, 5, b"x"));
    assert_eq!(done.reason, Reason::BySource);
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

#[test]
fn udp_servers_on_the_wildcard_address_answer_by_the_address_that_was_called() {
    for family in FAMILIES {
        for (came, leaves) in [(NET1, ETH0), (SP0, ETH0), (NET1, NET1)] {
            let mut tables = tables();
            let e = to_pod(NET1, family);
            run_ingress(&tables, came, &from(GATEWAY, frames::udp(e, b"q")));
            // The kernel took the address of the NIC that it routed by.
            let wrong = if leaves == ETH0 { ETH0 } else { NET2 };
            let reply = frames::udp(Ends { src: at(Endpoint::Nic(wrong), family), ..e.back() }, b"a");
            let bound = run_egress(&tables, leaves, &reply);
            assert_ne!(bound.reason, Reason::ReplySource, "a bound socket means what it says");
            tables.wildcard = true;
            let done = run_egress(&tables, leaves, &reply);
            assert_eq!(done.reason, Reason::ReplySource);
            let want = if came == leaves { Verdict::Pass } else { redirect(came) };
            assert_eq!(done.verdict, want);
            assert_eq!(frames::ends(&done.frame), Some(e.back()));
            assert!(frames::sums_are_right(&done.frame));
        }
    }
}

#[test]
fn an_underlay_address_called_by_eth0_is_not_recorded() {
    let tables = tables();
    let done = run_ingress(&tables, ETH0, &frames::tcp(to_pod(NET1, Family::V4), SYN, b""));
    assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NotOurs));
    assert!(tables.arrivals.borrow().is_empty());
}

#[test]
fn flows_close_and_expire() {
    let e = to_pod(NET1, Family::V4);
    let reply = frames::tcp(e.back(), ACK, b"x");
    // Packets that come in (true) or go out by net1, then idle seconds that end the flow.
    let table: [(&[(bool, u8)], u64); 5] = [
        (&[(true, SYN)], 60),
        (&[(true, SYN), (true, ACK)], 86_400),
        (&[(true, SYN), (true, ACK), (true, FIN | ACK)], 3600),
        (&[(true, SYN), (true, ACK), (true, FIN | ACK), (false, FIN | ACK)], 60),
        (&[(true, SYN), (true, ACK), (true, RST)], 10),
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
        assert_eq!(run_egress(&tables, ETH0, &reply).reason, Reason::BySource, "{packets:?}");
    }
}

#[test]
fn a_stream_without_answers_keeps_its_path() {
    for family in FAMILIES {
        let mut tables = tables();
        let e = to_pod(NET1, family);
        run_ingress(&tables, NET1, &from(GATEWAY, frames::udp(e, b"subscribe")));
        for second in 0..400 {
            tables.now += SECOND;
            let done = run_egress(&tables, ETH0, &frames::udp(e.back(), b"news"));
            assert_eq!(to_by(&done), (GATEWAY, redirect(NET1)), "after {second} s");
        }
        tables.now += 181 * SECOND;
        assert_eq!(run_egress(&tables, ETH0, &frames::udp(e.back(), b"news")).reason, Reason::BySource);
    }
}

#[test]
fn a_lost_entry_of_the_node_link_is_restored() {
    for family in FAMILIES {
        for called in [NET1, NET2] {
            let e = Ends { src: at(Endpoint::Node, family), ..to_pod(called, family) };
            let mut tables = tables();
            for flags in [SYN, ACK] {
                run(&tables, Program::HostEgress, SP0, &frames::tcp(e, flags, b""));
                run_ingress(&tables, SP0, &frames::tcp(e, flags, b""));
                if flags == SYN {
                    run(&tables, Program::HostIngress, SP0, &frames::tcp(e.back(), SYN | ACK, b""));
                }
            }
            let reply = frames::tcp(e.back(), ACK, b"x");
            let whole = tables.arrivals.borrow().clone();
            // Pushed out by others, then again much later.
            for pause in [0, 80_000] {
                tables.arrivals.borrow_mut().clear();
                tables.now += pause * SECOND;
                run_ingress(&tables, SP0, &frames::tcp(e, RST, b""));
                assert_ne!(
                    run_egress(&tables, ETH0, &reply).reason,
                    Reason::ReplyRedirected,
                    "a RST starts nothing"
                );
                assert_eq!(run_ingress(&tables, SP0, &frames::tcp(e, ACK, b"x")).reason, Reason::ArrivalNew);
                assert_eq!(to_by(&run_egress(&tables, ETH0, &reply)), (peer(SP0), redirect(SP0)));
                let states = |map: &std::collections::HashMap<_, crate::maps::ArrivalEntry>| {
                    map.values().map(|entry| entry.state).collect::<Vec<_>>()
                };
                assert_eq!(states(&tables.arrivals.borrow()), states(&whole));
            }
        }
    }
}

/// Somebody in the underlay sends through the node's MAC, or to net1's, in the name of whom the pod talks to.
#[test]
fn a_connection_that_the_pod_has_begun_is_not_diverted() {
    for family in FAMILIES {
        // The other side's packets, as the attacker sends them.
        let e = Ends { src: at(Endpoint::Outside, family), sport: 443, ..to_pod(NET1, family) };
        for (segment, protocol) in
            [(frames::tcp(e, SYN, b""), 6), (frames::tcp(e, ACK, b"x"), 6), (frames::udp(e, b"x"), 17)]
        {
            for nic in [SP0, NET1] {
                let mut tables = tables();
                let mut h = crate::headers::Headers::default();
                crate::headers::parse(&segment, &mut h);
                assert_eq!(h.l4.protocol, protocol);
                tables.connected.insert(FlowKey::of(POD, &h, Direction::Ingress));
                if nic == SP0 {
                    // The host end may have recorded it: it does not know the pod's sockets.
                    run(&tables, Program::HostEgress, SP0, &segment);
                }
                run_ingress(&tables, nic, &segment);
                if nic == SP0 && protocol == 6 {
                    // A SYN first, which the pod's kernel does not answer by a SYN-ACK.
                    for flags in [SYN, ACK] {
                        run(&tables, Program::HostEgress, SP0, &frames::tcp(e, flags, b""));
                        run_ingress(&tables, SP0, &frames::tcp(e, flags, b""));
                    }
                }
                assert!(tables.arrivals.borrow().is_empty(), "{:?} by {nic}", segment.bytes);
                let own = if protocol == 6 {
                    frames::tcp(e.back(), ACK, b"x")
                } else {
                    frames::udp(e.back(), b"x")
                };
                let done = run_egress(&tables, NET1, &own);
                assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NotOurs));
            }
        }
    }
}

/// So eth0 records no answers to what the pod started.
#[test]
fn replies_by_eth0_need_no_entry() {
    for family in FAMILIES {
        for place in [Endpoint::OverlayPod, Endpoint::Outside] {
            let e = Ends { src: at(place, family), ..to_pod(ETH0, family) };
            let tables = tables();
            assert_eq!(run_ingress(&tables, ETH0, &frames::tcp(e, ACK, b"x")).reason, Reason::NotOurs);
            let done = run_egress(&tables, NET1, &frames::tcp(e.back(), ACK, b"x"));
            assert_eq!(to_by(&done), (peer(ETH0), redirect(ETH0)));
        }
    }
}

#[test]
fn a_forged_reset_does_not_cut_a_flow() {
    let mut tables = tables();
    let e = to_pod(NET1, Family::V4);
    for flags in [SYN, ACK, RST, ACK] {
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

/// A datagram of a forger on net1 from `place`, then the pod's own query to there by a wildcard socket.
fn forged_then_asked(place: Endpoint, family: Family, by: u16) -> Reason {
    let mut tables = tables();
    tables.wildcard = true;
    let e = Ends { src: at(place, family), sport: 53, dst: at(Endpoint::Nic(NET1), family), dport: 40_000 };
    run_ingress(&tables, NET1, &frames::udp(e, b"forged"));
    run_egress(&tables, NET1, &frames::udp(Ends { src: at(Endpoint::Nic(by), family), ..e.back() }, b"q"))
        .reason
}

#[test]
fn a_forged_datagram_does_not_steal_queries_to_the_cluster() {
    for family in FAMILIES {
        assert_eq!(forged_then_asked(Endpoint::Service, family, ETH0), Reason::Steered);
        assert_eq!(forged_then_asked(Endpoint::Service, family, NET1), Reason::NatNew);
        for place in [Endpoint::OverlayPod, Endpoint::Node] {
            assert_eq!(forged_then_asked(place, family, ETH0), Reason::Steered, "{place:?}");
        }
        let e = Ends { src: at(Endpoint::Service, family), ..to_pod(NET1, family) };
        for frame in [frames::tcp(e, SYN, b""), frames::udp(e, b"x"), frames::echo(e, true, 5, b"x")] {
            let tables = tables();
            assert_eq!(run_ingress(&tables, NET1, &frame).reason, Reason::NotOurs);
            assert!(tables.arrivals.borrow().is_empty(), "a Service does not call");
        }
    }
}

#[test]
fn what_the_node_hands_over_is_not_diverted_to_the_underlay() {
    for family in FAMILIES {
        let e = Ends { src: at(Endpoint::OverlayPod, family), ..to_pod(NET1, family) };
        let flows = [
            (frames::udp(e, b"q"), frames::udp(e.back(), b"a")),
            (frames::tcp(e, SYN, b""), frames::tcp(e.back(), SYN | ACK, b"")),
            (frames::echo(e, true, 5, b"x"), frames::echo(e.back(), false, 5, b"x")),
        ];
        for (request, answer) in flows {
            let tables = tables();
            run_ingress(&tables, SP0, &request);
            assert_eq!(run_ingress(&tables, NET1, &from(GATEWAY, request)).reason, Reason::NotOurs);
            assert_eq!(to_by(&run_egress(&tables, ETH0, &answer)), (peer(SP0), redirect(SP0)));
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
            for nic in [NET1, SP0] {
                let tables = tables();
                let flooded = Frame { for_other_host: true, ..make(e) };
                assert_eq!(
                    run_ingress(&tables, nic, &flooded).reason,
                    Reason::NotOurs,
                    "another machine's MAC"
                );
                for dst in [Endpoint::Neighbor, Endpoint::Foreign] {
                    let done = run_ingress(&tables, nic, &make(Ends { dst: at(dst, family), ..e }));
                    assert_eq!(done.reason, Reason::NotOurs, "{dst:?} is not the pod's");
                }
                assert!(tables.arrivals.borrow().is_empty());
                for dst in [NET1, NET2] {
                    let done =
                        run_ingress(&tables, nic, &make(Ends { dst: at(Endpoint::Nic(dst), family), ..e }));
                    assert_eq!(done.reason, Reason::ArrivalNew);
                }
            }
        }
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

/// Its servers are behind the policies of the default network, and everybody in the underlay can send to net1's MAC.
#[test]
fn the_cluster_address_is_not_reached_by_an_underlay_nic() {
    for family in FAMILIES {
        for called in [Endpoint::Nic(ETH0), Endpoint::Second(ETH0)] {
            let e = Ends { dst: at(called, family), ..to_pod(ETH0, family) };
            let frames = [
                frames::tcp(e, SYN, b""),
                frames::tcp(e, ACK, b"x"),
                frames::udp(e, b"q"),
                frames::echo(e, true, 1, b""),
                frames::sctp(e, true),
                frames::other(e, 47, &[0; 8]),
                frames::icmp_error(e),
                frames::fragment(frames::udp(e, &[0; 64]), true),
                frames::fragment(frames::udp(e, &[0; 64]), false),
            ];
            for frame in frames {
                for nic in [NET1, NET2] {
                    let done = run_ingress(&tables(), nic, &frame);
                    assert_eq!((done.verdict, done.reason), (Verdict::Drop, Reason::ClusterAddress));
                }
                for nic in [ETH0, SP0] {
                    assert_eq!(run_ingress(&tables(), nic, &frame).verdict, Verdict::Pass);
                }
            }
        }
    }
}
