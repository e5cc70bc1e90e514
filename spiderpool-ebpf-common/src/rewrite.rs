//! What is to be changed in a packet, and changing it: MACs, addresses, ports, segment size, and the checksums with
//! them. Decisions only write a [`Rewrite`]; the packet is touched once, in the end, and wholly or not at all.

pub mod answer;
mod quoted;
pub mod too_big;
mod translate;

use crate::addr::Addr;
use crate::headers::{Fragment, Headers};
use crate::maps::NicEntry;
use crate::packet::{Packet, Sum};
use crate::protocol::TCP;
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
    const fn end(&self) -> translate::End {
        translate::End { is_source: self.changes & SOURCE != 0, addr: self.addr, port: self.port }
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
        && (changes & (SOURCE | DESTINATION) == 0 || translate::translate(p, h, r.end()))
        && (changes & QUOTED == 0 || quoted::translate(p, h, quoted, r.end()))
        && (changes & MSS == 0 || set_mss(p, h, r))
        && (changes & ARP_REPLY == 0 || answer::to_arp_reply(p))
        && (changes & NDP_REPLY == 0 || answer::to_advertisement(p, h.src))
        && (changes & TOO_BIG == 0 || too_big::to_too_big(p, h, r.mss, message))
}

#[inline(always)]
fn set_mss<P: Packet>(p: &mut P, h: &Headers, r: &Rewrite) -> bool {
    let sum = Sum { pseudo: false, udp: false };
    p.l4_csum_replace_u16(translate::checksum(h), r.old_mss.to_be(), r.mss.to_be(), sum)
        && p.store(h.l4.offset + 22, &r.mss.to_be_bytes())
}
