//! The pod's end of the node link: which flows are answered there.

use super::{Processed, run, run_egress, run_ingress, with_large_mtu};
use crate::flow_state::SECOND;
use crate::headers::{ACK, Headers, SYN};
use crate::maps::{DEFAULT_BACKUP, Direction, FlowKey};
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, NET2, POD, SP0, at, mac, peer, tables};
use crate::model::traffic::Program;
use crate::model::{Frame, Tables};
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn called_by(place: Endpoint, family: Family) -> Ends {
    Ends { src: at(place, family), sport: 33_000, dst: at(Endpoint::Nic(NET1), family), dport: 80 }
}

/// A packet comes by the node link: past the host end, then by the pod's.
fn arrives(tables: &Tables, frame: &Frame) -> Processed {
    let host = run(tables, Program::HostEgress, SP0, frame);
    assert_eq!(host.verdict, Verdict::Pass);
    run_ingress(tables, SP0, frame)
}

fn by_link(done: &Processed) -> bool {
    let is_by_link = done.verdict == Verdict::Redirect { ifindex: IFINDEX + u32::from(SP0) };
    if is_by_link {
        assert_eq!((&done.frame.bytes[..6], &done.frame.bytes[6..12]), (&peer(SP0)[..], &mac(SP0)[..]));
        assert_eq!(done.reason, Reason::ReplyRedirected);
    }
    is_by_link
}

/// Request, its reply, and a later packet of the pod.
fn flows(e: Ends) -> [(Frame, Frame); 3] {
    [
        (frames::tcp(e, SYN, b""), frames::tcp(e.back(), SYN | ACK, b"")),
        (frames::udp(e, b"q"), frames::udp(e.back(), b"a")),
        (frames::echo(e, true, 5, b"x"), frames::echo(e.back(), false, 5, b"x")),
    ]
}

#[test]
fn replies_go_back_by_the_link() {
    for family in FAMILIES {
        for place in [Endpoint::Node, Endpoint::OverlayPod, Endpoint::Outside] {
            for called in [Endpoint::Nic(NET1), Endpoint::Second(NET1), Endpoint::Nic(NET2)] {
                let e = Ends { dst: at(called, family), ..called_by(place, family) };
                for (request, reply) in flows(e) {
                    let tables = with_large_mtu();
                    let arrived = arrives(&tables, &request);
                    assert_eq!((arrived.verdict, arrived.reason), (Verdict::Pass, Reason::ArrivalNew));
                    for leaves in [ETH0, NET1, NET2] {
                        let done = run_egress(&tables, leaves, &reply);
                        assert!(
                            by_link(&done),
                            "{place:?} called {called:?}, left by {leaves}: {}",
                            done.reason
                        );
                        assert_eq!(done.frame.bytes[12..], reply.bytes[12..], "only MACs change");
                    }
                    let here = run_egress(&tables, SP0, &reply);
                    assert_eq!((here.verdict, here.reason), (Verdict::Pass, Reason::NodeLink));
                    let back = run(&tables, Program::HostIngress, SP0, &reply);
                    assert_eq!((back.verdict, back.reason), (Verdict::Pass, Reason::LinkReply));
                }
            }
        }
    }
}

/// The host end lets nothing of it back, so it is not sent there.
#[test]
fn what_the_host_end_has_not_recorded_is_not_answered_by_the_link() {
    for family in FAMILIES {
        for (request, reply) in flows(called_by(Endpoint::Node, family)) {
            let tables = with_large_mtu();
            assert_eq!(run_ingress(&tables, SP0, &request).reason, Reason::NotOurs);
            assert!(!by_link(&run_egress(&tables, ETH0, &reply)));
        }
    }
}

#[test]
fn what_the_node_hands_over_is_not_diverted_to_the_underlay() {
    for family in FAMILIES {
        for (request, reply) in flows(called_by(Endpoint::OverlayPod, family)) {
            let tables = with_large_mtu();
            arrives(&tables, &request);
            run_ingress(&tables, NET1, &request);
            assert!(by_link(&run_egress(&tables, ETH0, &reply)));
        }
    }
}

/// Somebody in the underlay sends through the node's MAC in the name of whom the pod talks to.
#[test]
fn a_connection_that_the_pod_has_begun_is_not_diverted() {
    for family in FAMILIES {
        for place in [Endpoint::Outside, Endpoint::OverlayPod] {
            let e = Ends { sport: 443, ..called_by(place, family) };
            let forged: [&[Frame]; 3] = [
                &[frames::tcp(e, SYN, b""), frames::tcp(e, ACK, b""), frames::tcp(e, SYN, b"")],
                &[frames::tcp(e, ACK, b"x")],
                &[frames::udp(e, b"x"), frames::udp(e, b"x")],
            ];
            for packets in forged {
                let mut tables = with_large_mtu();
                let mut h = Headers::default();
                crate::headers::parse(&packets[0], &mut h);
                tables.connected.insert(FlowKey::of(POD, &h, Direction::Ingress));
                for packet in packets {
                    arrives(&tables, packet);
                }
                assert!(tables.arrivals.borrow().is_empty());
                let is_tcp = h.l4.protocol == 6;
                let own = if is_tcp { frames::tcp(e.back(), ACK, b"x") } else { frames::udp(e.back(), b"x") };
                assert!(!by_link(&run_egress(&tables, NET1, &own)), "{place:?}");
            }
        }
    }
}

/// UDP by a socket that is not connected: a port that the kernel gave it shows that it asks, on fixed ports that it has spoken
/// first. Only the node itself is believed: nobody borrows its name.
#[test]
fn datagrams_divert_no_query_of_the_pod() {
    for family in FAMILIES {
        for (place, port) in [
            (Endpoint::Outside, 40_000),
            (Endpoint::OverlayPod, 40_000),
            (Endpoint::Outside, 123),
            (Endpoint::OverlayPod, 123),
        ] {
            for wildcard in [false, true] {
                let mut tables = tables();
                tables.wildcard = wildcard;
                let e = Ends { sport: 123, dport: port, ..called_by(place, family) };
                let query = frames::udp(e.back(), b"q");
                let first = run_egress(&tables, NET1, &query).verdict;
                for _ in 0..3 {
                    assert_eq!(arrives(&tables, &frames::udp(e, b"forged")).reason, Reason::OwnFlow);
                    assert_eq!(run_egress(&tables, NET1, &query).verdict, first, "{place:?} {port}");
                }
            }
        }
        let e = Ends { dport: 40_000, ..called_by(Endpoint::Node, family) };
        let tables = tables();
        assert_eq!(arrives(&tables, &frames::udp(e, b"q")).reason, Reason::ArrivalNew);
        assert!(by_link(&run_egress(&tables, ETH0, &frames::udp(e.back(), b"a"))));
    }
}

#[test]
fn a_new_flow_of_the_pod_is_no_reply() {
    for family in FAMILIES {
        let (tables, e) = (with_large_mtu(), called_by(Endpoint::Node, family));
        for frame in [frames::tcp(e, SYN, b""), frames::tcp(e, ACK, b"")] {
            arrives(&tables, &frame);
        }
        assert_eq!(run_egress(&tables, ETH0, &frames::tcp(e.back(), SYN, b"")).reason, Reason::NatNew);
        let own = run_egress(&tables, ETH0, &frames::tcp(e.back(), ACK, b"x"));
        assert_eq!(own.reason, Reason::Translated);
    }
}

/// A SYN that is repeated, or forged in the client's name, on a connection that the pod has accepted.
#[test]
fn a_second_syn_changes_no_way() {
    for family in FAMILIES {
        let e = called_by(Endpoint::Node, family);
        let (mut h, syn) = (Headers::default(), frames::tcp(e, SYN, b""));
        crate::headers::parse(&syn, &mut h);
        let mut tables = with_large_mtu();
        for frame in [&syn, &syn, &frames::tcp(e, ACK, b"")] {
            arrives(&tables, frame);
        }
        tables.connected.insert(FlowKey::of(POD, &h, Direction::Ingress));
        arrives(&tables, &syn);
        assert!(by_link(&run_egress(&tables, ETH0, &frames::tcp(e.back(), ACK, b"x"))));
    }
}

#[test]
fn replies_end_with_the_flow() {
    let (mut tables, e) = (with_large_mtu(), called_by(Endpoint::Node, Family::V4));
    for frame in [frames::tcp(e, SYN, b""), frames::tcp(e, ACK, b"")] {
        arrives(&tables, &frame);
    }
    tables.now += 80_000 * SECOND;
    let reply = frames::tcp(e.back(), ACK, b"x");
    assert!(by_link(&run_egress(&tables, ETH0, &reply)));
    tables.now += 10_000 * SECOND;
    assert!(!by_link(&run_egress(&tables, ETH0, &reply)));
}

/// Large answers of UDP servers, errors about a call, SCTP.
#[test]
fn what_has_no_flow_of_its_own_follows_the_one_that_it_belongs_to() {
    for family in FAMILIES {
        for place in [Endpoint::Node, Endpoint::Outside] {
            let (tables, e) = (tables(), called_by(place, family));
            let answer = frames::udp(e.back(), &[7; 64]);
            let (first, later) = (frames::fragment(answer.clone(), true), frames::fragment(answer, false));
            let error = frames::icmp_error_about(e.back(), &frames::udp(e, b"q"));
            for frame in [&later, &first, &error] {
                let before = tables.clone();
                assert!(!by_link(&run_egress(&before, NET1, frame)), "nothing has come yet");
            }
            arrives(&tables, &frames::udp(e, b"q"));
            for frame in [&first, &error] {
                assert!(by_link(&run_egress(&tables, NET1, frame)), "{place:?}");
            }
            let followed = run_egress(&tables, NET1, &later);
            assert_eq!(followed.reason, Reason::FragmentFollowed);
            assert_eq!(followed.verdict, Verdict::Redirect { ifindex: IFINDEX + u32::from(SP0) });
            arrives(&tables, &frames::sctp(e, true));
            let sctp = run_egress(&tables, NET1, &frames::sctp(e.back(), false));
            assert!(by_link(&sctp), "{place:?}");
        }
    }
}

/// The answer of a server on the wildcard address has the source of the route back, whoever was called.
#[test]
fn a_wildcard_server_answers_from_the_address_that_was_called_last() {
    for family in FAMILIES {
        let mut tables = with_large_mtu();
        tables.wildcard = true;
        for nic in tables.nics.values_mut() {
            (nic.default4, nic.default6) = (DEFAULT_BACKUP, DEFAULT_BACKUP);
        }
        let by_link = called_by(Endpoint::Outside, family);
        let by_eth0 = Ends { dst: at(Endpoint::Nic(ETH0), family), ..by_link };
        arrives(&tables, &frames::udp(by_link, b"q"));
        run_ingress(&tables, ETH0, &frames::udp(by_eth0, b"q"));
        let done = run_egress(&tables, NET1, &frames::udp(by_link.back(), b"a"));
        assert_eq!(done.reason, Reason::ReplySource, "{family:?}");
        assert_eq!(frames::ends(&done.frame), Some(by_eth0.back()), "{family:?}");
        assert_eq!(done.verdict, Verdict::Redirect { ifindex: IFINDEX + u32::from(ETH0) }, "{family:?}");
        // And by the link again.
        arrives(&tables, &frames::udp(by_link, b"q"));
        let done = run_egress(&tables, NET1, &frames::udp(by_link.back(), b"a"));
        assert_eq!(frames::ends(&done.frame), Some(by_link.back()), "{family:?}");
        assert_eq!(done.verdict, Verdict::Redirect { ifindex: IFINDEX + u32::from(SP0) }, "{family:?}");
    }
}
