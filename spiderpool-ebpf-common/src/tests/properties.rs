//! What holds for every packet in every state that packets lead to.

use proptest::prelude::*;

use super::{into, out};
use crate::headers::{ACK, FIN, Headers, RST, SYN};
use crate::maps::OUT;
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Family, IFINDEX, NET1, NET2, NICS, Place, SP0, at, tables};
use crate::model::{Frame, Tables};
use crate::packet::{Packet, Sum};
use crate::reason::Reason;
use crate::verdict::Verdict;

const SOURCES: [Place; 5] =
    [Place::Nic(ETH0), Place::Nic(NET1), Place::Nic(NET2), Place::Nic(SP0), Place::Foreign];
const REMOTES: [Place; 5] =
    [Place::Service, Place::OverlayPod, Place::Node, Place::Neighbour, Place::Outside];

#[derive(Clone, Debug)]
pub(crate) struct Step {
    outbound: bool,
    nic: u16,
    frame: Frame,
    wildcard: bool,
    pause: u64,
}

fn frame(kind: u8, e: Ends, flags: u8) -> Frame {
    match kind {
        0..=2 => frames::tcp(e, flags, b"payload"),
        3 | 4 => frames::udp(e, b"payload"),
        5 => frames::echo(e, true, e.sport.min(e.dport), b"x"),
        6 => frames::echo(e, false, e.sport.min(e.dport), b"x"),
        7 => frames::icmp_error(e),
        8 => frames::fragment(frames::udp(e, &[7; 40]), flags & 1 == 0),
        9 => frames::other(e, 132, &[0; 16]),
        _ => frames::udp(e, &[0; 1460]),
    }
}

/// Few addresses and ports, so that flows meet.
fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(&[SYN, SYN | ACK, ACK, FIN | ACK, RST, RST | ACK][..]);
    let places = (prop::sample::select(&SOURCES[..]), prop::sample::select(&REMOTES[..]));
    let pause = prop::sample::select(&[0, 1, 5, 61, 200, 4000, 100_000][..]);
    let ports = (prop::sample::select(&[40_000u16, 40_001][..]), prop::sample::select(&[53u16, 80][..]));
    let nic = prop::sample::select(&NICS[..]);
    (any::<bool>(), nic, places, ports, 0..11u8, flags, any::<bool>(), pause, any::<bool>()).prop_map(
        |(outbound, nic, (local, remote), (lport, rport), kind, flags, v4, pause, wildcard)| {
            let family = if v4 { Family::V4 } else { Family::V6 };
            let e = Ends { src: at(local, family), sport: lport, dst: at(remote, family), dport: rport };
            let e = if outbound { e } else { e.back() };
            Step { outbound, nic, frame: frame(kind, e, flags), wildcard, pause }
        },
    )
}

fn is_underlay(ip: std::net::IpAddr) -> bool {
    [NET1, NET2].iter().any(|&nic| [Family::V4, Family::V6].iter().any(|&f| at(Place::Nic(nic), f) == ip))
}

fn check_egress(nic: u16, before: &Frame, done: &super::Done) {
    let leaves_by = match done.verdict {
        Verdict::Pass => IFINDEX + u32::from(nic),
        Verdict::Redirect { ifindex }
        | Verdict::RedirectIngress { ifindex }
        | Verdict::RedirectNeigh { ifindex } => ifindex,
    };
    let ends = frames::ends(&done.frame).unwrap();
    if leaves_by == IFINDEX + u32::from(ETH0) {
        assert!(!is_underlay(ends.src), "{} left by eth0 ({})", ends.src, done.reason);
    }
    let old = frames::ends(before).unwrap();
    assert_eq!((ends.dst, ends.dport), (old.dst, old.dport), "a destination is never changed on egress");
    let may_change = [Reason::Translated, Reason::NatNew, Reason::NatPort, Reason::ReplySource];
    if ends != old {
        assert!(may_change.contains(&done.reason), "source changed as {}", done.reason);
    }
    if done.verdict == Verdict::Pass && done.reason != Reason::Failed && ends == old {
        assert_eq!(done.frame.bytes[..12], before.bytes[..12], "MACs of a packet that passes");
    }
}

fn check_ingress(tables: &Tables, before: &Frame, done: &super::Done) {
    assert_eq!(done.verdict, Verdict::Pass, "ingress neither drops nor redirects");
    if done.reason != Reason::TranslatedBack {
        assert_eq!(&done.frame, before, "only answers of translated flows are changed");
        return;
    }
    let (old, new) = (frames::ends(before).unwrap(), frames::ends(&done.frame).unwrap());
    assert_eq!(old.src, new.src);
    let nat = tables.nat.borrow();
    let started = nat.iter().any(|(key, entry)| {
        key.direction == OUT
            && frames::ip(key.local) == new.dst
            && frames::ip(entry.addr) == old.dst
            && frames::ip(key.remote) == new.src
    });
    assert!(started, "translated back what no entry stands for");
}

fn pairs_are_whole(tables: &Tables) {
    let nat = tables.nat.borrow();
    for (key, entry) in nat.iter().filter(|(key, _)| key.direction == OUT) {
        let back = crate::maps::NatKey {
            direction: crate::maps::BACK,
            local: entry.addr,
            local_port: entry.port,
            ..*key
        };
        let owner = nat.get(&back).map(|b| (b.addr, b.port));
        let over = crate::life::is_over(key.protocol, entry.state, entry.last_seen, tables.now);
        assert!(
            over || owner == Some((key.local, key.local_port)),
            "a live translation without its other half"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_packets(steps in prop::collection::vec(step(), 1..40)) {
        let mut tables = tables();
        for step in steps {
            tables.now += step.pause * crate::life::SECOND;
            tables.seed = tables.seed.wrapping_add(1);
            tables.wildcard = step.wildcard;
            let whole = frames::sums_are_right(&step.frame);
            let done = if step.outbound {
                let done = out(&tables, step.nic, &step.frame);
                check_egress(step.nic, &step.frame, &done);
                done
            } else {
                let done = into(&tables, step.nic, &step.frame);
                check_ingress(&tables, &step.frame, &done);
                done
            };
            prop_assert!(!whole || frames::sums_are_right(&done.frame), "checksum broken as {}", done.reason);
            pairs_are_whole(&tables);
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), ethertype in 0..4usize, nic in 0..5u16) {
        let mut bytes = bytes;
        if let (Some(field), Some(ty)) = (bytes.get_mut(12..14), [[8, 0], [0x86, 0xdd], [8, 6]].get(ethertype)) {
            field.copy_from_slice(ty);
        }
        let tables = tables();
        for run in [crate::egress::<Frame, Tables>, crate::ingress::<Frame, Tables>] {
            let mut frame = Frame::new(bytes.clone());
            run(&mut frame, nic, &mut Headers::default(), &tables);
            prop_assert_eq!(frame.bytes.len(), bytes.len());
        }
    }

    #[test]
    fn a_replaced_word_gives_the_recomputed_checksum(
        data in prop::collection::vec(any::<u8>(), 8..64), at in 1..3usize, new in any::<u32>(),
    ) {
        let mut data = data;
        if data.len() % 2 == 1 {
            data.pop();
        }
        let sum = |bytes: &[u8]| {
            let mut sum: u32 = bytes[2..].chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            !(sum as u16)
        };
        let first = sum(&data);
        data[..2].copy_from_slice(&first.to_be_bytes());
        let mut frame = Frame::new(data);
        let at = at * 2;
        let old = u32::from_ne_bytes(frame.load(at as u32).unwrap());
        frame.replace_l4(0, old, new, Sum { pseudo: true, udp: false });
        frame.store(at as u32, &new.to_ne_bytes());
        let (got, want) = (u16::from_be_bytes(frame.load(0).unwrap()), sum(&frame.bytes));
        // Zero has two forms in one's complement.
        prop_assert!(got == want || (got ^ want) == 0xffff && (got == 0 || want == 0), "{got:04x} {want:04x}");
    }
}
