//! Fragments follow their first one, whatever became of it.

use super::{run, run_egress, run_ingress};
use crate::flow_state::{FRAGMENTS_FOR, SECOND};
use crate::maps::FragmentKey;
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, SP0, at, tables};
use crate::model::traffic::Program;
use crate::model::{Frame, Tables};
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn query(family: Family) -> Ends {
    let (src, dst) = (at(Endpoint::Nic(NET1), family), at(Endpoint::Service, family));
    Ends { src, sport: 40_000, dst, dport: 53 }
}

/// A datagram in fragments of 64 bytes: what a receiver puts together again, and checks.
fn datagram(e: Ends) -> [Frame; 3] {
    let whole = frames::udp(e, &[9; 160]);
    [(0, 64), (64, 64), (128, 40)].map(|(from, length)| frames::part(&whole, from, length))
}

/// What a receiver makes of them.
fn assembled(parts: &[Frame]) -> Frame {
    frames::assembled(parts)
}

fn ends_of(frame: &Frame) -> (std::net::IpAddr, std::net::IpAddr) {
    let ends = frames::ends(frame).unwrap();
    (ends.src, ends.dst)
}

#[test]
fn a_translated_datagram_in_fragments_arrives_whole_both_ways() {
    for family in FAMILIES {
        for nic in [NET1, ETH0] {
            let (tables, e) = (tables(), query(family));
            let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
            let parts = datagram(e).map(|part| run_egress(&tables, nic, &part));
            assert_eq!(
                parts.each_ref().map(|done| done.reason),
                [Reason::NatNew, Reason::FragmentFollowed, Reason::FragmentFollowed]
            );
            assert!(parts.iter().all(|done| done.verdict == parts[0].verdict), "all by eth0");
            assert!(parts.iter().all(|done| done.frame.decided == (nic == NET1)));
            let whole = assembled(&parts.map(|done| done.frame));
            assert!(frames::sums_are_right(&whole));
            assert_eq!(frames::ends(&whole), Some(seen));
            let parts = datagram(seen.back()).map(|part| run_ingress(&tables, ETH0, &part));
            assert_eq!(
                parts.each_ref().map(|done| done.reason),
                [Reason::TranslatedBack, Reason::FragmentFollowed, Reason::FragmentFollowed]
            );
            let whole = assembled(&parts.map(|done| done.frame));
            assert!(frames::sums_are_right(&whole));
            assert_eq!(frames::ends(&whole), Some(e.back()));
        }
    }
}

#[test]
fn a_fragment_that_comes_before_its_first_one_is_kept_off_eth0() {
    for family in FAMILIES {
        let (tables, e) = (tables(), query(family));
        let [first, later, _] = datagram(e);
        let own = Verdict::RedirectNeigh { ifindex: IFINDEX + u32::from(NET1) };
        let early = run_egress(&tables, ETH0, &later);
        assert_eq!((early.verdict, early.reason, &early.frame), (own, Reason::Fragment, &later));
        run_egress(&tables, ETH0, &first);
        assert_eq!(run_egress(&tables, ETH0, &later).reason, Reason::FragmentFollowed);
        let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
        let [_, later, _] = datagram(seen.back());
        let early = run_ingress(&tables, ETH0, &later);
        assert_eq!((early.verdict, early.reason, early.frame), (Verdict::Pass, Reason::Fragment, later));
    }
}

#[test]
fn other_packets_fragments_follow_nothing() {
    for family in FAMILIES {
        let (mut tables, e) = (tables(), query(family));
        let [first, later, _] = datagram(e);
        run_egress(&tables, NET1, &first);
        let other = frames::with_identification(later.clone(), 8);
        assert_eq!(run_egress(&tables, NET1, &other).reason, Reason::Fragment);
        let elsewhere = Ends { dst: at(Endpoint::OverlayPod, family), ..e };
        assert_eq!(run_egress(&tables, NET1, &datagram(elsewhere)[1]).reason, Reason::Fragment);
        tables.now += FRAGMENTS_FOR + SECOND;
        assert_eq!(run_egress(&tables, NET1, &later).reason, Reason::Fragment, "too late");
    }
}

/// The identification is used again, by a packet that is not translated back.
#[test]
fn a_first_fragment_that_is_not_changed_ends_what_an_older_one_has_left() {
    for family in FAMILIES {
        let (tables, e) = (tables(), query(family));
        let seen = Ends { src: at(Endpoint::Nic(ETH0), family), ..e };
        run_egress(&tables, NET1, &datagram(e)[0]);
        let [first, later, _] = datagram(seen.back());
        run_ingress(&tables, ETH0, &first);
        assert_eq!(run_ingress(&tables, ETH0, &later).reason, Reason::FragmentFollowed);
        let other = datagram(Ends { dport: 40_999, ..seen.back() });
        assert_eq!(run_ingress(&tables, ETH0, &other[0]).reason, Reason::NotOurs);
        let done = run_ingress(&tables, ETH0, &other[1]);
        assert_eq!((done.reason, &done.frame), (Reason::Fragment, &other[1]));
    }
}

/// A server on the wildcard address is called in fragments, and answers so with another source.
#[test]
fn large_answers_of_a_wildcard_server_have_the_source_that_was_called() {
    for family in FAMILIES {
        let call = Ends {
            src: at(Endpoint::OverlayPod, family),
            sport: 40_000,
            dst: at(Endpoint::Nic(NET1), family),
            dport: 53,
        };
        let mut tables = tables();
        let calls = datagram(call).map(|part| {
            run(&tables, Program::HostEgress, SP0, &part);
            run_ingress(&tables, SP0, &part).reason
        });
        assert_eq!(calls, [Reason::ArrivalNew, Reason::Fragment, Reason::Fragment]);
        tables.wildcard = true;
        let eth0 = at(Endpoint::Nic(ETH0), family);
        let answer = datagram(Ends { src: eth0, ..call.back() }).map(|part| run_egress(&tables, ETH0, &part));
        assert_eq!(
            answer.each_ref().map(|done| done.reason),
            [Reason::ReplySource, Reason::FragmentFollowed, Reason::FragmentFollowed]
        );
        let link = Verdict::Redirect { ifindex: IFINDEX + u32::from(SP0) };
        assert!(answer.iter().all(|done| done.verdict == link));
        assert!(answer.iter().all(|done| ends_of(&done.frame) == (call.dst, call.src)));
        let at_host = answer.map(|done| run(&tables, Program::HostIngress, SP0, &done.frame));
        assert!(at_host.iter().all(|done| done.verdict == Verdict::Pass));
        let whole = assembled(&at_host.map(|done| done.frame));
        assert!(frames::sums_are_right(&whole));
    }
}

#[test]
fn of_a_first_fragment_that_is_too_long_nothing_is_sent() {
    for family in FAMILIES {
        let (mut tables, e) = (tables(), query(family));
        tables.nics.get_mut(&ETH0).unwrap().mtu = 100;
        let whole = frames::udp(e, &[9; 400]);
        let told = run_egress(&tables, NET1, &frames::part(&whole, 0, 200));
        assert_eq!(told.reason, Reason::MtuExceeded);
        assert!(matches!(told.verdict, Verdict::RedirectIngress { .. }));
        let later = run_egress(&tables, NET1, &frames::part(&whole, 200, 200));
        assert_eq!((later.verdict, later.reason), (Verdict::Drop, Reason::FragmentFollowed));
    }
}

/// One key for the fragments of one packet, whatever is behind their headers.
#[test]
fn keys() {
    let keys = |tables: &Tables| tables.fragments.borrow().keys().copied().collect::<Vec<FragmentKey>>();
    for family in FAMILIES {
        let tables = tables();
        let [first, later, last] = datagram(query(family));
        run_egress(&tables, NET1, &first);
        let one = keys(&tables);
        assert_eq!((one.len(), one[0].nic, one[0].is_ingress), (1, NET1, 0));
        for frame in [later, last] {
            run_egress(&tables, NET1, &frame);
        }
        assert_eq!(keys(&tables), one);
    }
}
