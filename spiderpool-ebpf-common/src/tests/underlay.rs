//! Pods whose first NIC is on the underlay: veth0 is node link and cluster NIC in one, and nothing is translated.

use proptest::prelude::*;

use super::{run, run_egress, run_ingress};
use crate::headers::{ACK, SYN};
use crate::maps::PodUsage;
use crate::model::frames::{self, Ends};
use crate::model::pod::{
    Endpoint, Family, IFINDEX, NET1, NET2, POD, SHARE, VETH0, at, mac, peer, underlay_tables,
};
use crate::model::traffic::{Program, TrafficStep};
use crate::model::{Frame, Tables};
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn ends(src: Endpoint, dst: Endpoint, family: Family) -> Ends {
    Ends { src: at(src, family), sport: 40_000, dst: at(dst, family), dport: 80 }
}

const fn by(nic: u16) -> Verdict {
    Verdict::Redirect { ifindex: IFINDEX + nic as u32 }
}

fn macs(frame: &Frame) -> ([u8; 6], [u8; 6]) {
    (frame.bytes[..6].try_into().unwrap(), frame.bytes[6..12].try_into().unwrap())
}

fn from_pod(tables: &Tables, frame: &Frame) -> (Verdict, Reason) {
    let done = run(tables, Program::HostIngress, VETH0, frame);
    (done.verdict, done.reason)
}

#[test]
fn cluster_traffic_leaves_by_veth0_as_it_is() {
    let tables = underlay_tables();
    for family in FAMILIES {
        let net1 = Endpoint::Nic(NET1);
        for dst in [Endpoint::Service, Endpoint::OverlayPod, Endpoint::Node] {
            for nic in [NET1, NET2] {
                let frame = frames::udp(ends(net1, dst, family), b"q");
                let done = run_egress(&tables, nic, &frame);
                assert_eq!((done.verdict, done.reason), (by(VETH0), Reason::Steered), "{dst:?} by {nic}");
                assert_eq!(macs(&done.frame), (peer(VETH0), mac(VETH0)));
                assert_eq!(done.frame.bytes[12..], frame.bytes[12..], "only MACs change");
                assert!(done.frame.decided, "veth0's program has nothing to add");
                let done = run_egress(&tables, VETH0, &done.frame);
                assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NodeLink));
            }
            // By a route hint.
            let done = run_egress(&tables, VETH0, &frames::udp(ends(net1, dst, family), b"q"));
            assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NodeLink), "{dst:?}");
        }
        let done = run_egress(&tables, NET1, &frames::udp(ends(net1, Endpoint::Outside, family), b"q"));
        assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NotOurs));
        let foreign =
            run_egress(&tables, NET1, &frames::udp(ends(Endpoint::Foreign, Endpoint::Service, family), b"q"));
        assert_eq!((foreign.verdict, foreign.reason), (Verdict::Pass, Reason::ForeignSource));
    }
    assert!(tables.nat.borrow().is_empty());
}

/// What comes by the node is recorded at the host end, whoever calls: a probe, a NodePort with externalTrafficPolicy Local.
#[test]
fn answers_to_callers_by_the_node_leave_by_veth0() {
    let tables = underlay_tables();
    for family in FAMILIES {
        for caller in [Endpoint::Outside, Endpoint::OverlayPod, Endpoint::Node] {
            let call = ends(caller, Endpoint::Nic(NET1), family);
            let done = run(&tables, Program::HostEgress, VETH0, &frames::tcp(call, SYN, b""));
            assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::LinkOpened), "{caller:?}");
            let arrived = run_ingress(&tables, VETH0, &frames::tcp(call, SYN, b""));
            assert_eq!(arrived.reason, Reason::ArrivalNew, "{caller:?}");
            let answer = frames::tcp(call.back(), SYN | ACK, b"");
            let done = run_egress(&tables, NET1, &answer);
            assert_eq!((done.verdict, done.reason), (by(VETH0), Reason::ReplyRedirected), "{caller:?}");
            let done = run_egress(&tables, VETH0, &answer);
            assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NodeLink), "{caller:?}");
            assert_eq!(from_pod(&tables, &answer), (Verdict::Pass, Reason::LinkFromPod));
        }
    }
}

/// Somebody in the underlay calls in the name of the node or of one of its pods, before and after they do: answers go to them.
#[test]
fn nobody_in_the_underlay_takes_over_what_comes_by_the_node() {
    for family in FAMILIES {
        for caller in [Endpoint::Node, Endpoint::OverlayPod] {
            for forged_first in [true, false] {
                let tables = underlay_tables();
                let call = Ends { dport: 53, ..ends(caller, Endpoint::Nic(NET1), family) };
                let calls = [
                    (frames::tcp(call, SYN, b""), frames::tcp(call.back(), SYN | ACK, b"")),
                    (frames::udp(call, b"q"), frames::udp(call.back(), b"a")),
                ];
                for (packet, answer) in calls {
                    let forge = || run_ingress(&tables, NET1, &packet);
                    if forged_first {
                        forge();
                    }
                    run(&tables, Program::HostEgress, VETH0, &packet);
                    run_ingress(&tables, VETH0, &packet);
                    if !forged_first {
                        forge();
                    }
                    for nic in [VETH0, NET1] {
                        let done = run_egress(&tables, nic, &answer);
                        let to_node =
                            done.verdict == by(VETH0) || (nic == VETH0 && done.verdict == Verdict::Pass);
                        assert!(
                            to_node,
                            "{caller:?} {family:?} by {nic}: {:?} {}",
                            done.verdict, done.reason
                        );
                    }
                }
            }
        }
    }
}

/// What answers the pod is no flow of somebody else's.
#[test]
fn answers_to_the_pod_are_not_recorded() {
    let tables = underlay_tables();
    for family in FAMILIES {
        for (caller, port) in
            [(Endpoint::Service, 80), (Endpoint::OverlayPod, 40_000), (Endpoint::Node, 50_000)]
        {
            let answer = Ends { dport: port, ..ends(caller, Endpoint::Nic(NET1), family) };
            let done = run(&tables, Program::HostEgress, VETH0, &frames::udp(answer, b"a"));
            assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::LinkToPod), "{caller:?}");
        }
    }
    assert!(tables.link_flows.borrow().is_empty());
}

/// An overlay pod of another node that comes unmasqueraded, whose way back by the node would be another one.
#[test]
fn answers_to_cluster_addresses_that_call_by_the_underlay_go_back_there() {
    let tables = underlay_tables();
    for family in FAMILIES {
        let call = ends(Endpoint::OverlayPod, Endpoint::Nic(NET1), family);
        let arrived = run_ingress(&tables, NET1, &frames::tcp(call, SYN, b""));
        assert_eq!(arrived.reason, Reason::ArrivalNew);
        let answer = frames::tcp(call.back(), SYN | ACK, b"");
        for nic in [VETH0, NET1] {
            let done = run_egress(&tables, nic, &answer);
            let (verdict, reason) = match nic {
                NET1 => (Verdict::Pass, Reason::ReplyHere),
                _ => (by(NET1), Reason::ReplyRedirected),
            };
            assert_eq!((done.verdict, done.reason), (verdict, reason), "by {nic}");
            assert_eq!(macs(&done.frame).0, macs(&frames::tcp(call, SYN, b"")).1, "to the sender");
        }
    }
}

/// A UDP server on the wildcard address that the node calls by the second NIC's address.
#[test]
fn a_wildcard_servers_answer_has_the_address_that_was_called() {
    let mut tables = underlay_tables();
    tables.wildcard = true;
    for family in FAMILIES {
        let call = ends(Endpoint::Node, Endpoint::Nic(NET2), family);
        run(&tables, Program::HostEgress, VETH0, &frames::udp(call, b"q"));
        assert_eq!(run_ingress(&tables, VETH0, &frames::udp(call, b"q")).reason, Reason::ArrivalNew);
        let answer = Ends { src: at(Endpoint::Nic(NET1), family), ..call.back() };
        let done = run_egress(&tables, VETH0, &frames::udp(answer, b"a"));
        assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::ReplySource));
        assert_eq!(frames::ends(&done.frame), Some(call.back()));
    }
}

#[test]
fn from_the_pod_passes_what_has_one_of_its_addresses() {
    let tables = underlay_tables();
    for family in FAMILIES {
        for own in [Endpoint::Nic(NET1), Endpoint::Nic(NET2), Endpoint::Second(NET1)] {
            for dst in [Endpoint::Service, Endpoint::Node, Endpoint::Outside] {
                let e = ends(own, dst, family);
                let whole = frames::udp(e, &[7; 64]);
                for frame in [
                    frames::tcp(e, SYN, b""),
                    frames::tcp(e, ACK, b"data"),
                    frames::echo(e, true, 1, b"x"),
                    frames::sctp(e, true),
                    frames::other(e, 47, &[0; 16]),
                    frames::fragment(whole.clone(), true),
                    frames::fragment(whole.clone(), false),
                    frames::icmp_error_about(e, &frames::udp(e.back(), b"x")),
                ] {
                    assert_eq!(from_pod(&tables, &frame), (Verdict::Pass, Reason::LinkFromPod), "{own:?}");
                }
            }
        }
    }
}

/// It is no rule of trust here.
#[test]
fn a_full_share_is_counted_and_drops_nothing() {
    let tables = underlay_tables();
    tables.usage.borrow_mut().insert(POD, PodUsage { link_flows: SHARE.link_flows, ..PodUsage::default() });
    let call = ends(Endpoint::Outside, Endpoint::Nic(NET1), Family::V4);
    let done = run(&tables, Program::HostEgress, VETH0, &frames::tcp(call, SYN, b""));
    assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::LinkFull));
}

proptest! {
    /// Whatever the pod has done before, nothing with an address that is not the pod's comes through, and what comes to the pod
    /// is never dropped.
    #[test]
    fn nobody_elses_address_leaves_by_veth0(theme in any::<u64>(), numbers in prop::collection::vec(any::<u64>(), 1..40)) {
        let mut tables = underlay_tables();
        for step in TrafficStep::sequence(theme, &numbers) {
            step.begin(&mut tables);
            let program = step.program();
            let verdict = program.run(&mut step.frame.clone(), step.nic, &tables);
            let Some(e) = frames::ends(&step.frame) else { continue };
            let nics = [NET1, NET2];
            let own = nics.iter().flat_map(|nic| [Endpoint::Nic(*nic), Endpoint::Second(*nic)]);
            let is_own = own.into_iter().any(|place| FAMILIES.iter().any(|family| at(place, *family) == e.src));
            if program == Program::HostIngress && step.nic == VETH0 && !is_own {
                prop_assert_eq!(verdict, Verdict::Drop, "{:?}", step);
            }
            if program != Program::HostIngress {
                prop_assert_ne!(verdict, Verdict::Drop, "{:?}", step);
            }
        }
        prop_assert!(tables.nat.borrow().is_empty());
    }
}
