//! Changes addresses, ports and MACs of a packet, and the checksums with them.

use crate::addr::Addr;
use crate::headers::{Headers, Kind};
use crate::life::protocol::{TCP, UDP};
use crate::maps::NicEntry;
use crate::packet::{ETH, Packet, Sum};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// Sets source address and source port (ICMP echo: the identifier).
#[inline(never)]
pub(crate) fn set_source<P: Packet>(p: &mut P, h: &Headers, addr: &Addr, port: u16) -> bool {
    set(p, h, Side::Source, *addr, port)
}

/// Sets destination address and destination port (ICMP echo: the identifier).
#[inline(never)]
pub(crate) fn set_destination<P: Packet>(p: &mut P, h: &Headers, addr: &Addr, port: u16) -> bool {
    set(p, h, Side::Destination, *addr, port)
}

/// Sets both MACs: from a NIC of the pod to `to`.
#[inline(always)]
pub(crate) fn set_macs<P: Packet>(p: &mut P, from: &NicEntry, to: [u8; 6]) -> bool {
    let (d, s) = (to, from.mac);
    p.store(0, &[d[0], d[1], d[2], d[3], d[4], d[5], s[0], s[1], s[2], s[3], s[4], s[5]])
}

#[inline(always)]
fn set<P: Packet>(p: &mut P, h: &Headers, side: Side, addr: Addr, port: u16) -> bool {
    let (old, old_port) = match side {
        Side::Source => (h.src, h.src_port),
        Side::Destination => (h.dst, h.dst_port),
    };
    let sum = h.l4
        + match h.protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
    let udp = h.protocol == UDP;
    let echo = matches!(h.kind, Kind::EchoRequest | Kind::EchoReply);
    let (old_port, port_at) = match (echo, side) {
        (true, _) => (h.echo_id, h.l4 + 4),
        (false, Side::Source) => (old_port, h.l4),
        (false, Side::Destination) => (old_port, h.l4 + 2),
    };
    if !set_addr(p, h, side, old, addr, sum) {
        return false;
    }
    if old_port == port {
        return true;
    }
    let half = Sum { pseudo: false, udp };
    p.replace_l4_half(sum, old_port.to_be(), port.to_be(), half) && p.store(port_at, &port.to_be_bytes())
}

#[inline(always)]
fn set_addr<P: Packet>(p: &mut P, h: &Headers, side: Side, old: Addr, new: Addr, sum: u32) -> bool {
    if old == new {
        return true;
    }
    let words = Sum { pseudo: true, udp: h.protocol == UDP };
    if old.is_v4() {
        let (from, to) = (old.words()[3], new.words()[3]);
        let at = ETH + if matches!(side, Side::Source) { 12 } else { 16 };
        // ICMP over IPv4 has no pseudo header.
        p.replace_l3(ETH + 10, from, to)
            && (!matches!(h.kind, Kind::Tcp | Kind::Udp) || p.replace_l4(sum, from, to, words))
            && p.store(at, &to.to_ne_bytes())
    } else {
        let (from, to) = (old.words(), new.words());
        let at = ETH + if matches!(side, Side::Source) { 8 } else { 24 };
        (from[0] == to[0] || p.replace_l4(sum, from[0], to[0], words))
            && (from[1] == to[1] || p.replace_l4(sum, from[1], to[1], words))
            && (from[2] == to[2] || p.replace_l4(sum, from[2], to[2], words))
            && (from[3] == to[3] || p.replace_l4(sum, from[3], to[3], words))
            && p.store(at, &new.bytes)
    }
}
