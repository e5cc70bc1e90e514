//! Turns a packet that is too long for its way into the ICMP error that says so, from where it was going, which is the only
//! address that surely is nobody's in the pod: fragmentation needed (RFC 1191, 4) or packet too big (RFC 4443, 3.2).
//!
//! It quotes what sockets find themselves by, the headers and some more. It stays in the pod, whose kernel takes no more of it.

use crate::headers::Headers;
use crate::packet::{ETH, Packet};
use crate::protocol::{ICMP, ICMP6};

/// Quoted of the packet: the longest IPv4 header and 20 bytes, or an IPv6 header and 40.
const QUOTED: u32 = 80;
/// IPv4 and ICMP header.
const HEADERS_V4: u32 = 28;
/// IPv6 and ICMPv6 header.
const HEADERS_V6: u32 = 48;

/// The error while it is made, as words in memory order. Like [`Headers`] it lies in map memory in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    v4: [u32; 5],
    v6: [u32; 10],
    icmp: [u32; 2],
    quoted: [u32; QUOTED as usize / 4],
    _pad: u32,
}

/// Length of the error, link header included.
#[inline(always)]
pub(super) const fn end(h: &Headers) -> u32 {
    ETH + if h.src.is_v4() { HEADERS_V4 } else { HEADERS_V6 } + QUOTED
}

/// From a packet with these headers, cut off at [`end`]. The MACs of the frame are not its business.
#[inline(never)]
pub(super) fn to_too_big<P: Packet>(p: &mut P, h: &Headers, mtu: u16, m: &mut Message) -> bool {
    if !p.load_into(ETH, &mut m.quoted) {
        return false;
    }
    let [high, low] = mtu.to_be_bytes();
    m.icmp[1] = u32::from_ne_bytes([0, 0, high, low]);
    if h.src.is_v4() { to_v4(p, h, m) } else { to_v6(p, h, m) }
}

#[inline(always)]
fn to_v4<P: Packet>(p: &mut P, h: &Headers, m: &mut Message) -> bool {
    const LENGTH: u8 = (HEADERS_V4 + QUOTED) as u8;
    // Precedence of network control, as routers send it (RFC 1812, 4.3.2.5); not to be fragmented; 64 hops.
    let protocol = u32::from_ne_bytes([64, ICMP, 0, 0]);
    let (src, dst) = (h.dst.words()[3], h.src.words()[3]);
    m.v4 = [
        u32::from_ne_bytes([0x45, 0xc0, 0, LENGTH]),
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        protocol,
        src,
        dst,
    ];
    m.v4[2] = protocol | checksum(p.sum(&m.v4).into());
    // Destination unreachable, fragmentation needed.
    let kind = u32::from_ne_bytes([3, 4, 0, 0]);
    m.icmp[0] = kind;
    m.icmp[0] = kind | checksum(u64::from(p.sum(&m.icmp)) + u64::from(p.sum(&m.quoted)));
    p.store_words(ETH, &m.v4)
        && p.store_words(ETH + 20, &m.icmp)
        && p.store_words(ETH + HEADERS_V4, &m.quoted)
}

#[inline(always)]
fn to_v6<P: Packet>(p: &mut P, h: &Headers, m: &mut Message) -> bool {
    const LENGTH: u8 = 8 + QUOTED as u8;
    let (src, dst) = (h.dst.words(), h.src.words());
    // The pseudo header (RFC 8200, 8.1): length, protocol and addresses.
    let (length, protocol) = (u32::from_ne_bytes([0, 0, 0, LENGTH]), u32::from_ne_bytes([0, 0, 0, ICMP6]));
    m.v6 = [length, protocol, src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3]];
    // Packet too big.
    let kind = u32::from_ne_bytes([2, 0, 0, 0]);
    m.icmp[0] = kind;
    let sum = u64::from(p.sum(&m.v6)) + u64::from(p.sum(&m.icmp)) + u64::from(p.sum(&m.quoted));
    m.icmp[0] = kind | checksum(sum);
    m.v6[0] = u32::from_ne_bytes([0x60, 0, 0, 0]);
    m.v6[1] = u32::from_ne_bytes([0, LENGTH, ICMP6, 64]);
    p.store_words(ETH, &m.v6)
        && p.store_words(ETH + 40, &m.icmp)
        && p.store_words(ETH + HEADERS_V6, &m.quoted)
}

/// A checksum as the second half of a word.
#[inline(always)]
const fn checksum(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let [a, b] = (!(sum as u16)).to_ne_bytes();
    u32::from_ne_bytes([0, 0, a, b])
}
