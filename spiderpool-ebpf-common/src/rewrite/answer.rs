//! Turns an ARP request or a neighbor solicitation into its own answer.

use crate::addr::Addr;
use crate::packet::{ETH, Packet};
use crate::protocol::ICMP6;

/// The MAC that node addresses have on an underlay NIC. Locally administered; no frame leaves with it, because
/// what is sent to it is steered.
pub const NODE_MAC: [u8; 6] = [0x02, 0x53, 0x50, 0x00, 0x00, 0x01];

/// End of an ARP packet.
pub(super) const ARP_END: u32 = ETH + 28;
/// Offset of the ICMPv6 header in a solicitation (which has no extension headers).
pub(crate) const NDP: u32 = ETH + 40;
/// End of a solicitation with one option.
pub(super) const NDP_END: u32 = NDP + 32;

/// From an ARP request over Ethernet for IPv4. The MACs of the frame are not its business.
#[inline(always)]
pub(super) fn to_arp_reply<P: Packet>(p: &mut P) -> bool {
    let Some(request) = p.load::<28>(ETH) else { return false };
    let mut reply = [0; 28];
    reply[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    reply[8..14].copy_from_slice(&NODE_MAC);
    // Our address is what was asked for, the target is who asked.
    reply[14..18].copy_from_slice(&[request[24], request[25], request[26], request[27]]);
    let mut at = 0;
    while at < 10 {
        reply[18 + at] = request[8 + at];
        at += 1;
    }
    p.store(ETH, &reply)
}

/// From a solicitation of `asker` with one option.
#[inline(always)]
pub(super) fn to_advertisement<P: Packet>(p: &mut P, asker: Addr) -> bool {
    let Some(target) = p.load::<16>(NDP + 8) else { return false };
    let to = asker.bytes;
    let mut b = [0; 32];
    // Neighbor advertisement, solicited and overriding, with the target's link-layer address.
    b[0] = 136;
    b[4] = 0x60;
    b[8..24].copy_from_slice(&target);
    b[24] = 2;
    b[25] = 1;
    b[26..32].copy_from_slice(&NODE_MAC);
    let sum = words(&target) + words(&to) + words(&b) + 32 + u32::from(ICMP6);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    b[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    p.store(ETH + 8, &target) && p.store(ETH + 24, &to) && p.store(NDP, &b)
}

/// Sum of the 16-bit words.
#[inline(always)]
fn words<const N: usize>(bytes: &[u8; N]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at + 1 < N {
        sum += u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
    }
    sum
}
