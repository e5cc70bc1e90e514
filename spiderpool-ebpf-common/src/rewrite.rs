//! What is to be changed in a packet, and changing it: MACs, addresses, ports, segment size, and the checksums with
//! them. Decisions only write a [`Rewrite`]; the packet is touched once, in the end, and wholly or not at all.

pub mod answer;
mod quoted;
pub mod too_big;

use crate::addr::Addr;
use crate::headers::{Fragment, Headers, L4Kind};
use crate::maps::NicEntry;
use crate::packet::{ETH, Packet, Sum};
use crate::protocol::{TCP, UDP};
use too_big::Message;

const MACS: u16 = 1;
const SOURCE: u16 = 2;
const DESTINATION: u16 = 4;
const MSS: u16 = 8;
const ARP_REPLY: u16 = 16;
const NDP_REPLY: u16 = 32;
const FOR_CLUSTER_NIC: u16 = 64;
const TOO_BIG: u16 = 128;
const QUOTED: u16 = 256;
/// What a first fragment and the later ones have in common.
const OF_ALL_FRAGMENTS: u16 = MACS | SOURCE | DESTINATION | FOR_CLUSTER_NIC;

/// The changes of one packet. Like [`Headers`] it lies in map memory in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    addr: Addr,
    /// Destination and source.
    macs: [u8; 12],
    port: u16,
    old_mss: u16,
    /// What the option MSS becomes, or the MTU that an ICMP error says.
    mss: u16,
    /// Which of the fields above count, and which answer the packet becomes.
    changes: u16,
}

impl Default for Rewrite {
    fn default() -> Self {
        Self { addr: Addr::ANY, macs: [0; 12], port: 0, old_mss: 0, mss: 0, changes: 0 }
    }
}

impl Rewrite {
    /// Nothing is to be changed. (The other fields are left as they are: that costs each packet less.)
    #[inline(always)]
    pub(crate) const fn clear(&mut self) {
        self.changes = 0;
    }

    /// Both MACs: from a NIC of the pod to `to`.
    #[inline(always)]
    pub(crate) const fn macs(&mut self, from: &NicEntry, to: [u8; 6]) {
        self.set_macs(from.mac, to);
    }

    /// It goes to the cluster NIC, and nothing is left to decide there.
    #[inline(always)]
    pub(crate) const fn for_cluster_nic(&mut self) {
        self.changes |= FOR_CLUSTER_NIC;
    }

    /// Whether it does.
    #[inline(always)]
    pub(crate) const fn is_for_cluster_nic(&self) -> bool {
        self.changes & FOR_CLUSTER_NIC != 0
    }

    /// Source address and source port (ICMP echo: the identifier).
    #[inline(always)]
    pub(crate) const fn source(&mut self, addr: Addr, port: u16) {
        (self.addr, self.port) = (addr, port);
        self.changes |= SOURCE;
    }

    /// Destination address and destination port (ICMP echo: the identifier).
    #[inline(always)]
    pub(crate) const fn destination(&mut self, addr: Addr, port: u16) {
        (self.addr, self.port) = (addr, port);
        self.changes |= DESTINATION;
    }

    /// In the packet that an ICMP error quotes, the same side of the same flow, as the quoted packet has it: what is the source here
    /// is the destination there.
    #[inline(always)]
    pub(crate) const fn quoted(&mut self) {
        self.changes |= QUOTED;
    }

    /// Whether nothing is to be changed.
    #[inline(always)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// What later fragments have in common with this one: changes, address, MACs. What is not changed is zero: the memory of a
    /// run holds what an earlier packet left, maybe of another pod.
    #[inline(always)]
    pub(crate) const fn followed(&self) -> (u16, Addr, [u8; 12]) {
        let changes = self.changes & OF_ALL_FRAGMENTS;
        let addr = if changes & (SOURCE | DESTINATION) == 0 { Addr::ANY } else { self.addr };
        let macs = if changes & MACS == 0 { [0; 12] } else { self.macs };
        (changes, addr, macs)
    }

    /// The other way.
    #[inline(always)]
    pub(crate) const fn follow(&mut self, changes: u16, addr: Addr, macs: [u8; 12]) {
        (self.changes, self.addr, self.macs) = (changes & OF_ALL_FRAGMENTS, addr, macs);
    }

    /// The option MSS, which is the first one.
    #[inline(always)]
    pub(crate) const fn mss(&mut self, old: u16, new: u16) {
        (self.old_mss, self.mss) = (old, new);
        self.changes |= MSS;
    }

    /// Whether the announced segment size is among the changes.
    #[inline(always)]
    pub(crate) const fn lowers_mss(&self) -> bool {
        self.changes & MSS != 0
    }

    /// The ARP request becomes its answer to `nic`.
    #[inline(always)]
    pub(crate) const fn arp_reply(&mut self, nic: &NicEntry) {
        self.set_macs(answer::NODE_MAC, nic.mac);
        self.changes |= ARP_REPLY;
    }

    /// The neighbor solicitation becomes its advertisement to `nic`.
    #[inline(always)]
    pub(crate) const fn ndp_reply(&mut self, nic: &NicEntry) {
        self.set_macs(answer::NODE_MAC, nic.mac);
        self.changes |= NDP_REPLY;
    }

    /// The packet becomes the ICMP error that tells its sender this MTU, and comes in by `nic`.
    #[inline(always)]
    pub(crate) const fn too_big(&mut self, nic: &NicEntry, mtu: u32) {
        self.set_macs(answer::NODE_MAC, nic.mac);
        self.mss = mtu as u16;
        self.changes |= TOO_BIG;
    }

    #[inline(always)]
    const fn set_macs(&mut self, from: [u8; 6], to: [u8; 6]) {
        self.macs =
            [to[0], to[1], to[2], to[3], to[4], to[5], from[0], from[1], from[2], from[3], from[4], from[5]];
        self.changes |= MACS;
    }

    /// Changes the packet, whose headers are `h`, and those that it quotes. `false`: the kernel refused, and the packet is as it
    /// was.
    #[inline(always)]
    pub(crate) fn apply<P: Packet>(
        &self,
        p: &mut P,
        h: &Headers,
        quoted: &Headers,
        message: &mut Message,
    ) -> bool {
        match self.changes & !FOR_CLUSTER_NIC {
            0 => true,
            MACS => p.store(0, &self.macs),
            _ => apply_all(p, h, quoted, self, message),
        }
    }

    #[inline(always)]
    const fn end(&self) -> End {
        End { is_source: self.changes & SOURCE != 0, addr: self.addr, port: self.port }
    }

    /// How much of the packet is written to.
    #[inline(always)]
    fn reach(&self, h: &Headers, quoted: &Headers) -> u32 {
        match self.changes & !(MACS | FOR_CLUSTER_NIC) {
            ARP_REPLY => answer::ARP_END,
            NDP_REPLY => answer::NDP_END,
            TOO_BIG => too_big::end(h),
            change if change & QUOTED != 0 => quoted.l4.offset + 8,
            change if change & MSS != 0 => h.l4.offset + 24,
            // A later fragment may be shorter than any transport header.
            _ if matches!(h.fragment, Fragment::Later) => h.l4.offset,
            _ if h.l4.protocol == TCP => h.l4.offset + 18,
            _ => h.l4.offset + 8,
        }
    }
}

/// An address and a port that a packet gets, as its source or its destination.
#[derive(Clone, Copy)]
struct End {
    is_source: bool,
    addr: Addr,
    port: u16,
}

#[inline(never)]
fn apply_all<P: Packet>(
    p: &mut P,
    h: &Headers,
    quoted: &Headers,
    r: &Rewrite,
    message: &mut Message,
) -> bool {
    // After this no write below is refused, so none is left alone.
    if !p.make_writable(r.reach(h, quoted)) {
        return false;
    }
    let changes = r.changes;
    (changes & TOO_BIG == 0 || p.truncate(too_big::end(h)))
        && (changes & MACS == 0 || p.store(0, &r.macs))
        && (changes & (SOURCE | DESTINATION) == 0 || translate(p, h, r))
        && (changes & QUOTED == 0 || quoted::translate(p, h, quoted, r.end()))
        && (changes & MSS == 0 || set_mss(p, h, r))
        && (changes & ARP_REPLY == 0 || answer::to_arp_reply(p))
        && (changes & NDP_REPLY == 0 || answer::to_advertisement(p, h.src))
        && (changes & TOO_BIG == 0 || too_big::to_too_big(p, h, r.mss, message))
}

/// Offset of the transport checksum.
#[inline(always)]
fn checksum(h: &Headers) -> u32 {
    h.l4.offset
        + match h.l4.protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        }
}

#[inline(always)]
fn set_mss<P: Packet>(p: &mut P, h: &Headers, r: &Rewrite) -> bool {
    let sum = Sum { pseudo: false, udp: false };
    p.l4_csum_replace_u16(checksum(h), r.old_mss.to_be(), r.mss.to_be(), sum)
        && p.store(h.l4.offset + 22, &r.mss.to_be_bytes())
}

#[inline(always)]
fn translate<P: Packet>(p: &mut P, h: &Headers, r: &Rewrite) -> bool {
    let source = r.changes & SOURCE != 0;
    let (old, old_port, port_at) = if source { (h.src, h.l4.src_port, 0) } else { (h.dst, h.l4.dst_port, 2) };
    let (old_port, port_at) = if h.is_echo() { (h.l4.echo_id, 4) } else { (old_port, port_at) };
    if !set_addr(p, h, source, old, r.addr) {
        return false;
    }
    // Later fragments and ICMP errors have none.
    if !h.is_tracked() || old_port == r.port {
        return true;
    }
    let sum = Sum { pseudo: false, udp: h.l4.protocol == UDP };
    p.l4_csum_replace_u16(checksum(h), old_port.to_be(), r.port.to_be(), sum)
        && p.store(h.l4.offset + port_at, &r.port.to_be_bytes())
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
fn replace_words<P: Packet>(p: &mut P, sum: u32, old: Addr, new: Addr, words: Sum) -> bool {
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
