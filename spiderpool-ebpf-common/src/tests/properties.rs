//! What holds for every packet in every state that packets lead to.

use proptest::prelude::*;

use super::{run_egress, run_ingress};
use crate::maps::Tuple;
use crate::model::frames;
use crate::model::pod::{ETH0, Endpoint, Family, IFINDEX, NET1, NET2, at, tables};
use crate::model::traffic::TrafficStep;
use crate::model::{Frame, Tables};
use crate::packet::{Packet, Sum};
use crate::reason::Reason;
use crate::scratch::Scratch;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn is_underlay(ip: std::net::IpAddr) -> bool {
    let places = [NET1, NET2].into_iter().flat_map(|nic| [Endpoint::Nic(nic), Endpoint::Second(nic)]);
    places.into_iter().any(|place| [Family::V4, Family::V6].iter().any(|&family| at(place, family) == ip))
}

/// The source where an IP header has it, however wrong the rest may be.
fn raw_source(frame: &Frame) -> Option<std::net::IpAddr> {
    match frame.bytes.get(12..14)? {
        [8, 0] => frame.bytes.get(14..34).map(|b| <[u8; 4]>::try_from(&b[12..16]).unwrap().into()),
        [0x86, 0xdd] => frame.bytes.get(14..54).map(|b| <[u8; 16]>::try_from(&b[8..24]).unwrap().into()),
        _ => None,
    }
}

fn check_egress(nic: u16, before: &Frame, done: &super::Processed) {
    let leaves_by = match done.verdict {
        Verdict::Pass => IFINDEX + u32::from(nic),
        // Of a first fragment that is too long the sender was told.
        Verdict::Drop if [Reason::MtuExceeded, Reason::FragmentFollowed].contains(&done.reason) => return,
        Verdict::Drop => panic!("dropped by {nic}"),
        Verdict::Redirect { ifindex }
        | Verdict::RedirectIngress { ifindex }
        | Verdict::RedirectNeigh { ifindex } => ifindex,
    };
    let addressed = done.reason != Reason::LinkScope && done.reason != Reason::NdpAnswered;
    if let (true, true, Some(src)) =
        (leaves_by == IFINDEX + u32::from(ETH0), addressed, raw_source(&done.frame))
    {
        assert!(!is_underlay(src), "{src} left by eth0 ({})", done.reason);
    }
    let (Some(ends), Some(old)) = (frames::ends(&done.frame), frames::ends(before)) else { return };
    // Neighbor discovery belongs to the link, whatever source the kernel gave it.
    if matches!(done.reason, Reason::NdpAnswered | Reason::LinkScope) {
        return;
    }
    if done.reason == Reason::MtuExceeded {
        assert_eq!((ends.src, ends.dst), (old.dst, old.src), "it goes back to its sender");
        return;
    }
    assert_eq!((ends.dst, ends.dport), (old.dst, old.dport), "a destination is never changed on egress");
    let may_change = [
        Reason::Translated,
        Reason::NatNew,
        Reason::NatPort,
        Reason::NatConflict,
        Reason::ReplySource,
        Reason::FragmentFollowed,
        Reason::ErrorTranslated,
    ];
    if ends != old {
        assert!(may_change.contains(&done.reason), "source changed as {}", done.reason);
    }
    let same_macs = ![Reason::Failed, Reason::ReplyHere].contains(&done.reason);
    if done.verdict == Verdict::Pass && same_macs && ends == old {
        assert_eq!(done.frame.bytes[..12], before.bytes[..12], "MACs of a packet that passes");
    }
}

fn check_ingress(tables: &Tables, nic: u16, before: &Frame, done: &super::Processed) {
    let is_cluster_address = frames::ends(before).is_some_and(|ends| {
        let own = [Endpoint::Nic(ETH0), Endpoint::Second(ETH0)];
        own.iter().any(|own| FAMILIES.iter().any(|family| at(*own, *family) == ends.dst))
    });
    // Or an ICMP error about it: `errors_by_an_underlay_nic_are_about_its_own_flows`.
    let may_be_about_it = done.reason == Reason::ClusterAddress && is_icmp(before);
    let drops = [NET1, NET2].contains(&nic) && (is_cluster_address || may_be_about_it);
    let verdict = if drops { Verdict::Drop } else { Verdict::Pass };
    assert_eq!(done.verdict, verdict, "ingress drops nothing else, and does not redirect");
    let translated = [Reason::TranslatedBack, Reason::FragmentFollowed, Reason::ErrorTranslated];
    if !translated.contains(&done.reason) {
        assert_eq!(frames::ends(&done.frame), frames::ends(before));
        let clamped = tables.packets(nic, Reason::MssClamped) > 0;
        assert!(clamped || &done.frame == before, "only answers of translated flows are changed");
        return;
    }
    let (old, new) = (frames::ends(before).unwrap(), frames::ends(&done.frame).unwrap());
    assert_eq!(old.src, new.src);
    let nat = tables.nat.borrow();
    let started = nat.iter().any(|(key, entry)| {
        key.is(Tuple::Original)
            && frames::ip(key.local) == new.dst
            && frames::ip(entry.addr) == old.dst
            && (frames::ip(key.remote) == new.src || done.reason == Reason::ErrorTranslated)
    });
    assert!(started, "translated back what no entry stands for");
}

fn is_icmp(frame: &Frame) -> bool {
    match frame.bytes.get(12..14) {
        Some([8, 0]) => frame.bytes.get(23) == Some(&1),
        // Extension headers may be before it.
        Some([0x86, 0xdd]) => frame.bytes.get(20).is_some_and(|next| ![6, 17].contains(next)),
        _ => false,
    }
}

fn check_pairs(tables: &Tables) {
    let nat = tables.nat.borrow();
    for (key, entry) in nat.iter().filter(|(key, _)| key.is(Tuple::Original)) {
        let back = key.counterpart(entry.addr, entry.port);
        let owner = nat.get(&back).map(|b| (b.addr, b.port));
        let expired = crate::flow_state::is_expired(key.protocol, entry.state, entry.last_seen, tables.now);
        assert!(
            expired || owner == Some((key.local, key.local_port)),
            "a live translation without its other half"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_packets(theme in any::<u64>(), numbers in prop::collection::vec(any::<u64>(), 1..40)) {
        let mut tables = tables();
        for mut step in TrafficStep::sequence(theme, &numbers) {
            // Only programs mark packets so, once the source is right.
            step.frame.decided = false;
            tables.now += step.pause * crate::flow_state::SECOND;
            tables.seed = tables.seed.wrapping_add(1);
            tables.wildcard = step.wildcard;
            let whole = frames::sums_are_right(&step.frame);
            let done = if step.outbound {
                let done = run_egress(&tables, step.nic, &step.frame);
                check_egress(step.nic, &step.frame, &done);
                done
            } else {
                let done = run_ingress(&tables, step.nic, &step.frame);
                check_ingress(&tables, step.nic, &step.frame, &done);
                done
            };
            prop_assert!(!whole || frames::sums_are_right(&done.frame), "checksum broken as {}", done.reason);
            check_pairs(&tables);
        }
    }

    #[test]
    fn never_panics_on_arbitrary_input(bytes in prop::collection::vec(any::<u8>(), 0..200), ethertype in 0..4usize, nic in 0..5u16) {
        let mut bytes = bytes;
        if let (Some(field), Some(ty)) = (bytes.get_mut(12..14), [[8, 0], [0x86, 0xdd], [8, 6]].get(ethertype)) {
            field.copy_from_slice(ty);
        }
        let tables = tables();
        for run in [crate::egress::<Frame, Tables>, crate::ingress::<Frame, Tables>] {
            let mut frame = Frame::new(bytes.clone());
            run(&mut frame, nic, &mut Scratch::default(), &tables);
            // (An ICMP error in place of it may be shorter.)
            prop_assert!(frame.bytes.len() <= bytes.len());
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
        frame.l4_csum_replace(0, old, new, Sum { pseudo: true, udp: false });
        frame.store(at as u32, &new.to_ne_bytes());
        let (got, want) = (u16::from_be_bytes(frame.load(0).unwrap()), sum(&frame.bytes));
        // Zero has two forms in one's complement.
        prop_assert!(got == want || (got ^ want) == 0xffff && (got == 0 || want == 0), "{got:04x} {want:04x}");
    }
}
