//! Egress without state: who is steered, who is not, and what is not sent by eth0.

use super::{run, run_egress, run_ingress, with_large_mtu};
use crate::headers::{ACK, SYN};
use crate::model::Frame;
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, NET2, SP0, at, mac, peer, tables};
use crate::model::traffic::Program;
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

type Make = fn(Ends) -> Frame;

fn ends(src: Endpoint, dst: Endpoint, family: Family) -> Ends {
    Ends { src: at(src, family), sport: 40_000, dst: at(dst, family), dport: 80 }
}

fn by(nic: u16) -> Verdict {
    Verdict::Redirect { ifindex: IFINDEX + u32::from(nic) }
}

fn neigh(nic: u16) -> Verdict {
    Verdict::RedirectNeigh { ifindex: IFINDEX + u32::from(nic) }
}

fn macs(frame: &Frame) -> ([u8; 6], [u8; 6]) {
    let part = |at: usize| <[u8; 6]>::try_from(&frame.bytes[at..at + 6]).unwrap();
    (part(0), part(6))
}

#[test]
fn connections_by_source_and_destination() {
    let net1 = Endpoint::Nic(NET1);
    let eth0 = Endpoint::Nic(ETH0);
    let table = [
        (NET1, net1, Endpoint::Outside, Verdict::Pass, Reason::NotOurs),
        (NET1, net1, Endpoint::Neighbor, Verdict::Pass, Reason::NotOurs),
        (NET1, net1, Endpoint::Service, by(ETH0), Reason::NatNew),
        (NET1, net1, Endpoint::Node, by(ETH0), Reason::NatNew),
        (NET1, eth0, Endpoint::Service, by(ETH0), Reason::Steered),
        (NET1, eth0, Endpoint::Outside, by(ETH0), Reason::BySource),
        (NET1, Endpoint::Nic(NET2), Endpoint::Service, by(ETH0), Reason::NatNew),
        (NET1, Endpoint::Nic(NET2), Endpoint::Outside, neigh(NET2), Reason::BySource),
        (NET1, Endpoint::Foreign, Endpoint::Service, Verdict::Pass, Reason::ForeignSource),
        (NET1, Endpoint::Foreign, Endpoint::Outside, Verdict::Pass, Reason::ForeignSource),
        (ETH0, eth0, Endpoint::Service, Verdict::Pass, Reason::ClusterDirect),
        (ETH0, eth0, Endpoint::Outside, Verdict::Pass, Reason::NotOurs),
        (ETH0, net1, Endpoint::Service, Verdict::Pass, Reason::NatNew),
        (ETH0, net1, Endpoint::Outside, neigh(NET1), Reason::BySource),
        (ETH0, Endpoint::Foreign, Endpoint::Service, Verdict::Pass, Reason::ForeignSource),
        (SP0, net1, Endpoint::Node, Verdict::Pass, Reason::NodeLink),
        (NET1, Endpoint::Second(NET1), Endpoint::Service, by(ETH0), Reason::NatNew),
        (NET1, Endpoint::Second(NET1), Endpoint::Outside, Verdict::Pass, Reason::NotOurs),
        (ETH0, Endpoint::Second(NET1), Endpoint::Service, Verdict::Pass, Reason::NatNew),
        (ETH0, Endpoint::Second(NET1), Endpoint::Outside, neigh(NET1), Reason::BySource),
        (NET2, Endpoint::Second(NET1), Endpoint::Outside, neigh(NET1), Reason::BySource),
        (ETH0, Endpoint::Second(ETH0), Endpoint::Service, Verdict::Pass, Reason::ClusterDirect),
        (ETH0, Endpoint::Second(ETH0), Endpoint::Outside, Verdict::Pass, Reason::NotOurs),
        (NET1, Endpoint::Second(ETH0), Endpoint::Service, by(ETH0), Reason::Steered),
        (NET1, Endpoint::Second(ETH0), Endpoint::Outside, by(ETH0), Reason::BySource),
    ];
    for family in FAMILIES {
        for (nic, src, dst, verdict, reason) in table {
            let tables = tables();
            let frame = frames::tcp(ends(src, dst, family), SYN, b"");
            let done = run_egress(&tables, nic, &frame);
            assert_eq!((done.verdict, done.reason), (verdict, reason), "{nic} {src:?} {dst:?} {family:?}");
            assert!(frames::sums_are_right(&done.frame), "{src:?} {dst:?} {family:?}");
            if done.verdict == by(ETH0) {
                assert_eq!(macs(&done.frame), (peer(ETH0), mac(ETH0)));
            }
        }
    }
}

#[test]
fn what_cannot_be_looked_up_is_kept_off_eth0() {
    let kinds: [(Reason, Make); 3] = [
        (Reason::Fragment, |e| frames::fragment(frames::udp(e, &[1; 64]), false)),
        (Reason::IcmpError, frames::icmp_error),
        (Reason::OtherProtocol, |e| frames::other(e, 132, &[0; 12])),
    ];
    let net1 = Endpoint::Nic(NET1);
    let table = [
        (ETH0, net1, Endpoint::Node, neigh(NET1)),
        (ETH0, net1, Endpoint::Service, neigh(NET1)),
        (ETH0, net1, Endpoint::Outside, neigh(NET1)),
        (ETH0, Endpoint::Nic(ETH0), Endpoint::Service, Verdict::Pass),
        (NET1, net1, Endpoint::Node, Verdict::Pass),
        (NET1, net1, Endpoint::Outside, Verdict::Pass),
        (NET1, Endpoint::Nic(ETH0), Endpoint::Outside, by(ETH0)),
        (NET1, Endpoint::Foreign, Endpoint::Service, Verdict::Pass),
    ];
    for family in FAMILIES {
        for (reason, make) in kinds {
            for (nic, src, dst, verdict) in table {
                let tables = tables();
                let done = run_egress(&tables, nic, &make(ends(src, dst, family)));
                let what = format!("{reason} on {nic} from {src:?} to {dst:?} {family:?}");
                assert_eq!((done.verdict, done.reason), (verdict, reason), "{what}");
                assert!(tables.nat.borrow().is_empty() && tables.arrivals.borrow().is_empty(), "{what}");
            }
        }
    }
}

#[test]
fn a_segment_of_no_known_flow_is_kept_off_eth0() {
    for family in FAMILIES {
        let e = ends(Endpoint::Nic(NET1), Endpoint::Service, family);
        for nic in [ETH0, NET1] {
            for frame in
                [frames::tcp(e, ACK, b"x"), frames::tcp(e, SYN | ACK, b""), frames::echo(e, false, 9, b"x")]
            {
                let tables = with_large_mtu();
                let done = run_egress(&tables, nic, &frame);
                let own = if nic == ETH0 { neigh(NET1) } else { Verdict::Pass };
                assert_eq!((done.verdict, done.reason), (own, Reason::NatUnknown));
                assert_eq!(done.frame.bytes, frame.bytes);
                assert!(tables.nat.borrow().is_empty());
            }
        }
    }
}

#[test]
fn a_pod_without_ipv6_on_eth0_is_not_steered_by_ipv6() {
    let mut tables = tables();
    tables.nics.get_mut(&ETH0).unwrap().addr6 = [0; 16];
    let frame = frames::tcp(ends(Endpoint::Nic(NET1), Endpoint::Service, Family::V6), SYN, b"");
    let done = run_egress(&tables, NET1, &frame);
    assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::NotOurs));
}

#[test]
fn link_scope_and_malformed_packets_pass_untouched() {
    let tables = tables();
    let multicast = Ends {
        dst: "224.0.0.251".parse().unwrap(),
        ..ends(Endpoint::Nic(NET1), Endpoint::Service, Family::V4)
    };
    let link = Ends {
        src: at(Endpoint::Nic(NET1), Family::V6),
        dst: "fe80::1".parse().unwrap(),
        sport: 1,
        dport: 2,
    };
    let mut short = frames::udp(ends(Endpoint::Nic(NET1), Endpoint::Service, Family::V4), b"");
    short.bytes.truncate(32);
    for (frame, reason) in [
        (frames::udp(multicast, b"x"), Reason::LinkScope),
        (frames::udp(link, b"x"), Reason::LinkScope),
        (short, Reason::Malformed),
        (Frame::new(vec![0xff; 60]), Reason::NotIp),
    ] {
        let done = run_egress(&tables, NET1, &frame);
        assert_eq!((done.verdict, done.reason, &done.frame), (Verdict::Pass, reason, &frame));
    }
}

#[test]
fn what_cannot_be_read_to_its_end_is_kept_off_eth0() {
    let cut = |family, len: usize| {
        let mut frame = frames::tcp(ends(Endpoint::Nic(NET1), Endpoint::Outside, family), SYN, b"");
        frame.bytes.truncate(len);
        frame
    };
    let mut options = cut(Family::V4, 60);
    options.bytes[14] = 0x44;
    let mut version = cut(Family::V6, 70);
    version.bytes[14] = 0x50;
    let mut extension = cut(Family::V6, 54);
    extension.bytes[20] = 60;
    for frame in [cut(Family::V4, 34), cut(Family::V4, 48), cut(Family::V6, 60), options, version, extension]
    {
        let done = run_egress(&tables(), ETH0, &frame);
        assert_eq!((done.verdict, done.reason), (neigh(NET1), Reason::Malformed));
        let done = run_egress(&tables(), NET1, &frame);
        assert_eq!((done.verdict, done.reason), (Verdict::Pass, Reason::Malformed));
    }
}

#[test]
fn nics_without_entry_are_left_alone() {
    let tables = tables();
    for id in [0, 9, 9999] {
        let mut frame = frames::udp(ends(Endpoint::Nic(NET1), Endpoint::Service, Family::V4), b"x");
        let before = frame.clone();
        let mut memory = crate::scratch::Scratch::default();
        assert_eq!(crate::egress(&mut frame, id, &mut memory, &tables), Verdict::Pass);
        assert_eq!(crate::ingress(&mut frame, id, &mut memory, &tables), Verdict::Pass);
        assert_eq!(frame, before);
    }
    assert!(tables.stats.borrow().is_empty());
}

fn mss(frame: &Frame) -> u16 {
    u16::from_be_bytes(frame.bytes[frame.bytes.len() - 2..].try_into().unwrap())
}

/// Both sides of a connection learn the smaller MTU, whoever calls, whatever the source.
#[test]
fn segment_sizes_in_both_directions() {
    for (family, want) in [(Family::V4, 1450 - 40), (Family::V6, 1450 - 60)] {
        let (net1, eth0) = (Endpoint::Nic(NET1), Endpoint::Nic(ETH0));
        let reply = SYN | ACK;
        for src in [net1, eth0] {
            let (tables, e) = (tables(), ends(src, Endpoint::Service, family));
            let seen = ends(eth0, Endpoint::Service, family);
            assert_eq!(mss(&run_egress(&tables, NET1, &frames::tcp(e, SYN, b"")).frame), want);
            let back = run_ingress(&tables, ETH0, &frames::tcp(seen.back(), reply, b""));
            assert_eq!(mss(&back.frame), want, "the pod's segments, from {src:?}");
            assert!(frames::sums_are_right(&back.frame));
            assert_eq!(tables.packets(ETH0, Reason::MssClamped), 1);
        }
        for (called, came) in [(eth0, ETH0), (net1, SP0)] {
            let (tables, call) = (tables(), ends(Endpoint::OverlayPod, called, family));
            run(&tables, Program::HostEgress, SP0, &frames::tcp(call, SYN, b""));
            assert_eq!(mss(&run_ingress(&tables, came, &frames::tcp(call, SYN, b"")).frame), want);
            let done = run_egress(&tables, NET1, &frames::tcp(call.back(), reply, b""));
            let reason = if came == ETH0 { Reason::Steered } else { Reason::ReplyRedirected };
            assert_eq!((done.reason, mss(&done.frame)), (reason, want));
            let long = frames::tcp(call.back(), ACK, &[0; 1440]);
            assert_eq!(run_egress(&tables, NET1, &long).reason, Reason::MtuExceeded);
        }
        let (tables, direct) = (tables(), ends(eth0, Endpoint::Outside, family));
        assert_eq!(mss(&run_egress(&tables, NET1, &frames::tcp(direct, SYN, b"")).frame), want);
        let foreign = ends(Endpoint::Outside, Endpoint::Foreign, family);
        assert_eq!(
            mss(&run_ingress(&tables, ETH0, &frames::tcp(foreign, SYN, b"")).frame),
            1460,
            "not the pod's"
        );
    }
}

#[test]
fn segment_sizes_and_long_packets() {
    for (family, mss) in [(Family::V4, 1450 - 40), (Family::V6, 1450 - 60)] {
        let tables = tables();
        let e = ends(Endpoint::Nic(NET1), Endpoint::Service, family);
        let done = run_egress(&tables, NET1, &frames::tcp(e, SYN, b""));
        let at = done.frame.bytes.len() - 2;
        assert_eq!(done.frame.bytes[at..], u16::to_be_bytes(mss));
        assert!(frames::sums_are_right(&done.frame));
        assert_eq!(tables.packets(NET1, Reason::MssClamped), 1);
        assert_eq!(run_egress(&tables, NET1, &frames::tcp(e, ACK, &[0; 1440])).reason, Reason::MtuExceeded);
        // 24 bytes of TCP header, as the frames here have.
        let fits = u32::from(mss) - 4;
        for (gso_size, reason) in [(fits, Reason::Translated), (fits + 1, Reason::MtuExceeded)] {
            let gso = Frame { gso_size, ..frames::tcp(e, ACK, &[0; 9000]) };
            assert_eq!(run_egress(&tables, NET1, &gso).reason, reason);
        }
    }
}

/// What is too long for the NIC that it would leave by comes back as the ICMP error about it, to the NIC that may get what is
/// for its sender.
#[test]
fn the_sender_of_a_packet_that_is_too_long_is_told() {
    for family in FAMILIES {
        for (nic, source, to) in [(NET1, NET1, NET1), (ETH0, NET1, ETH0), (NET1, ETH0, ETH0)] {
            let mut tables = tables();
            let e = ends(Endpoint::Nic(source), Endpoint::Service, family);
            tables.nics.get_mut(&ETH0).unwrap().mtu = 1400;
            let before = frames::udp(e, &[7; 1400]);
            let done = run_egress(&tables, nic, &before);
            assert_eq!(done.reason, Reason::MtuExceeded, "{family:?} by {nic} from {source}");
            assert_eq!(done.verdict, Verdict::RedirectIngress { ifindex: IFINDEX + u32::from(to) });
            assert_eq!(done.frame.bytes[..6], mac(to));
            let back = frames::ends(&done.frame).unwrap();
            assert_eq!((back.src, back.dst), (e.dst, e.src));
            assert!(frames::sums_are_right(&done.frame));
            // Type and code, the MTU, and the beginning of what was sent.
            let (icmp, kind) = if family == Family::V4 { (34, [3, 4]) } else { (54, [2, 0]) };
            assert_eq!(done.frame.bytes[icmp..icmp + 2], kind);
            assert_eq!(done.frame.bytes[icmp + 4..icmp + 8], 1400u32.to_be_bytes());
            let quoted = &done.frame.bytes[icmp + 8..];
            assert_eq!(quoted, &before.bytes[14..14 + quoted.len()]);
            let came_in = run_ingress(&tables, to, &done.frame);
            assert_eq!((came_in.verdict, came_in.reason), (Verdict::Pass, Reason::IcmpError));
            // Nobody is told about an error.
            let long_error = frames::other(e, if family == Family::V4 { 1 } else { 58 }, &[1; 1440]);
            let long_error = Frame { bytes: with_error_type(long_error.bytes, icmp), ..long_error };
            let dropped = run_egress(&tables, nic, &long_error);
            if source == ETH0 {
                assert_eq!((dropped.verdict, dropped.reason), (Verdict::Drop, Reason::MtuExceeded));
            }
        }
    }
}

fn with_error_type(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] = if at == 34 { 3 } else { 1 };
    bytes
}

/// eth0's address is in net1's subnet: there the source decides, and what is longer than that prefix is steered as ever.
#[test]
fn two_nics_in_one_subnet() {
    let mut tables = tables();
    let eth0 = tables.nics.get_mut(&ETH0).unwrap();
    eth0.addr4 = [172, 18, 55, 5];
    for (nic, src, dst, verdict, reason) in [
        (NET1, "172.18.55.5", "172.18.1.1", by(ETH0), Reason::BySource),
        (ETH0, "172.18.55.5", "172.18.1.1", Verdict::Pass, Reason::NotOurs),
        (ETH0, "172.18.55.180", "172.18.1.1", neigh(NET1), Reason::BySource),
        (NET1, "172.18.55.180", "172.18.1.1", Verdict::Pass, Reason::NotOurs),
        (NET1, "172.18.55.5", "172.18.0.3", by(ETH0), Reason::Steered),
        (NET1, "172.18.55.180", "172.18.0.3", by(ETH0), Reason::NatNew),
    ] {
        let e = Ends { src: src.parse().unwrap(), sport: 40_000, dst: dst.parse().unwrap(), dport: 80 };
        let done = run_egress(&tables, nic, &frames::udp(e, b"q"));
        assert_eq!((done.verdict, done.reason), (verdict, reason), "{src} to {dst} by {nic}");
    }
    let call = Ends {
        src: "172.18.1.1".parse().unwrap(),
        sport: 40_000,
        dst: "172.18.55.5".parse().unwrap(),
        dport: 80,
    };
    assert_eq!(run_ingress(&tables, ETH0, &frames::tcp(call, SYN, b"")).verdict, Verdict::Pass);
    assert_eq!(run_ingress(&tables, NET1, &frames::tcp(call, SYN, b"")).verdict, Verdict::Drop);
}
