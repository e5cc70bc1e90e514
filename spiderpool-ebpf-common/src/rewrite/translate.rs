//! Gives a packet another address and port on one side, and the checksums with them.

use crate::addr::Addr;
use crate::headers::{Fragment, Headers, L4Kind};
use crate::packet::{ETH, Packet, Sum};
use crate::protocol::{TCP, UDP};

/// An address and a port that a packet gets, as its source or its destination.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) is_source: bool,
    pub(super) addr: Addr,
    pub(super) port: u16,
}

/// Offset of the transport checksum.
#[inline(always)]
pub(super) fn checksum(h: &Headers) -> u32 {
    h.l4.offset
        + match h.l4.protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        }
}

/// Gives the packet with these headers that end.
#[inline(always)]
pub(super) fn translate<P: Packet>(p: &mut P, h: &Headers, end: End) -> bool {
    let source = end.is_source;
    let (old, old_port, port_at) = if source { (h.src, h.l4.src_port, 0) } else { (h.dst, h.l4.dst_port, 2) };
    let (old_port, port_at) = if h.is_echo() { (h.l4.echo_id, 4) } else { (old_port, port_at) };
    if !set_addr(p, h, source, old, end.addr) {
        return false;
    }
    // Later fragments and ICMP errors have none.
    if !h.is_tracked() || old_port == end.port {
        return true;
    }
    let sum = Sum { pseudo: false, udp: h.l4.protocol == UDP };
    p.l4_csum_replace_u16(checksum(h), old_port.to_be(), end.port.to_be(), sum)
        && p.store(h.l4.offset + port_at, &end.port.to_be_bytes())
}

#[inline(always)]
fn set_addr<P: Packet>(p: &mut P, h: &Headers, source: bool, old: Addr, new: Addr) -> bool {
    if old == new {
        return true;
    }
    let sum = checksum(h);
    let words = Sum { pseudo: true, udp: h.l4.protocol == UDP };
    if old.is_v4() {
        let (from, to) = (old.words()[3], new.words()[3]);
        let at = ETH + if source { 12 } else { 16 };
        // ICMP over IPv4 has no pseudo header.
        p.l3_csum_replace(ETH + 10, from, to)
            && (!matches!(h.l4.kind, L4Kind::Tcp | L4Kind::Udp) || p.l4_csum_replace(sum, from, to, words))
            && p.store(at, &to.to_ne_bytes())
    } else {
        let at = ETH + if source { 8 } else { 24 };
        (matches!(h.fragment, Fragment::Later) || replace_words(p, sum, old, new, words))
            && p.store(at, &new.bytes)
            && {
                p.add_to_whole_sum(difference(old, new));
                true
            }
    }
}

/// Adapts a transport checksum to an IPv6 address.
#[inline(always)]
pub(super) fn replace_words<P: Packet>(p: &mut P, sum: u32, old: Addr, new: Addr, words: Sum) -> bool {
    let (from, to) = (old.words(), new.words());
    (from[0] == to[0] || p.l4_csum_replace(sum, from[0], to[0], words))
        && (from[1] == to[1] || p.l4_csum_replace(sum, from[1], to[1], words))
        && (from[2] == to[2] || p.l4_csum_replace(sum, from[2], to[2], words))
        && (from[3] == to[3] || p.l4_csum_replace(sum, from[3], to[3], words))
}

/// By how much the sum of a packet's words differs when one IPv6 address takes the place of another, in one's complement.
///
/// That is what the checksum of the whole packet (`CHECKSUM_COMPLETE`) lacks in either case. Where the transport checksum was
/// adapted too, the packet's sum is as it was, but the kernel has changed its own by what an address differs that the IPv4
/// header's checksum balances (net/core/utils.c, `inet_proto_csum_replace4`; since Linux 6.16 a flag, BPF_F_IPV6, keeps it from
/// that). Where there was none to adapt, in later fragments, the address has changed the sum and nothing balances it.
#[inline(always)]
fn difference(old: Addr, new: Addr) -> u32 {
    let (from, to) = (old.words(), new.words());
    let mut sum = 0u64;
    let mut at = 0;
    while at < 4 {
        sum += u64::from(to[at]) + u64::from(!from[at]);
        at += 1;
    }
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}
