//! Makes frames for tests, with right checksums, and checks those of others.

use std::net::IpAddr;

use super::Frame;
use crate::addr::Addr;
use crate::headers::{self, Fragment, Headers, L4Kind};
use crate::protocol::{ICMP, ICMP6, SCTP, TCP, UDP};

/// MAC of who sends, where a test says nothing else.
pub const SENDER: [u8; 6] = [0x02, 0xaa, 0, 0, 0, 1];
/// MAC of who receives.
pub const RECEIVER: [u8; 6] = [0x02, 0xbb, 0, 0, 0, 2];

/// The two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Source address.
    pub src: IpAddr,
    /// Source port; identifier of an echo.
    pub sport: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: u16,
}

impl Ends {
    /// The other direction.
    #[must_use]
    pub const fn back(self) -> Self {
        Self { src: self.dst, sport: self.dport, dst: self.src, dport: self.sport }
    }
}

/// An address as the maps hold it.
pub fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => Addr::v4(ip.octets()),
        IpAddr::V6(ip) => Addr::v6(ip.octets()),
    }
}

/// A TCP segment with the option MSS 1460.
pub fn tcp(e: Ends, flags: u8, payload: &[u8]) -> Frame {
    let mut l4 = vec![0; 24];
    l4[..2].copy_from_slice(&e.sport.to_be_bytes());
    l4[2..4].copy_from_slice(&e.dport.to_be_bytes());
    l4[12] = 6 << 4;
    l4[13] = flags;
    l4[14] = 0xff;
    l4[20..].copy_from_slice(&[2, 4, 5, 180]);
    l4.extend(payload);
    finish(e, TCP, l4, Some(16))
}

/// A TCP segment with this sequence number.
pub fn with_sequence(mut frame: Frame, sequence: u32) -> Frame {
    let at = if frame.bytes[12..14] == [8, 0] { 34 } else { 54 } + 4;
    frame.bytes[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
    frame
}

/// A UDP datagram.
pub fn udp(e: Ends, payload: &[u8]) -> Frame {
    let mut l4 = vec![0; 8];
    l4[..2].copy_from_slice(&e.sport.to_be_bytes());
    l4[2..4].copy_from_slice(&e.dport.to_be_bytes());
    l4[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    l4.extend(payload);
    finish(e, UDP, l4, Some(6))
}

/// An echo request or reply; its identifier is `id`.
pub fn echo(e: Ends, request: bool, id: u16, payload: &[u8]) -> Frame {
    let (protocol, ty) = match (e.src.is_ipv4(), request) {
        (true, true) => (ICMP, 8),
        (true, false) => (ICMP, 0),
        (false, true) => (ICMP6, 128),
        (false, false) => (ICMP6, 129),
    };
    let mut l4 = vec![ty, 0, 0, 0, 0, 0, 0, 1];
    l4[4..6].copy_from_slice(&id.to_be_bytes());
    l4.extend(payload);
    finish(e, protocol, l4, Some(2))
}

/// Port unreachable, about some packet.
pub fn icmp_error(e: Ends) -> Frame {
    let (protocol, ty, code) = if e.src.is_ipv4() { (ICMP, 3, 3) } else { (ICMP6, 1, 4) };
    let mut l4 = vec![ty, code, 0, 0, 0, 0, 0, 0];
    l4.extend([0x45; 28]);
    finish(e, protocol, l4, Some(2))
}

/// Port unreachable, about this packet.
pub fn icmp_error_about(e: Ends, packet: &Frame) -> Frame {
    let (protocol, ty, code) = if e.src.is_ipv4() { (ICMP, 3, 3) } else { (ICMP6, 1, 4) };
    let mut l4 = vec![ty, code, 0, 0, 0, 0, 0, 0];
    l4.extend(packet.bytes[14..].iter().take(56));
    finish(e, protocol, l4, Some(2))
}

/// An SCTP packet that opens an association, or has data; without checksum.
pub fn sctp(e: Ends, init: bool) -> Frame {
    let mut l4 = vec![0; 32];
    l4[..2].copy_from_slice(&e.sport.to_be_bytes());
    l4[2..4].copy_from_slice(&e.dport.to_be_bytes());
    l4[12] = u8::from(init);
    finish(e, SCTP, l4, None)
}

/// A packet of any protocol, without checksum.
pub fn other(e: Ends, protocol: u8, payload: &[u8]) -> Frame {
    finish(e, protocol, payload.to_vec(), None)
}

/// The part of a packet's data (what is behind its IP header) that starts at `from`, as a fragment; its identification is 7.
pub fn part(whole: &Frame, from: usize, length: usize) -> Frame {
    let v4 = whole.bytes[12..14] == [8, 0];
    let headers = if v4 { 34 } else { 54 };
    let more = headers + from + length < whole.bytes.len();
    let mut bytes = whole.bytes[..headers].to_vec();
    let end = (headers + from + length).min(whole.bytes.len());
    if v4 {
        let field = (from / 8) as u16 | u16::from(more) << 13;
        bytes[16..18].copy_from_slice(&((20 + end - headers - from) as u16).to_be_bytes());
        bytes[20..22].copy_from_slice(&field.to_be_bytes());
        set_ipv4_sum(&mut bytes);
    } else {
        let field = (from as u16 & !7) | u16::from(more);
        let [high, low] = field.to_be_bytes();
        bytes.extend([bytes[20], 0, high, low, 0, 0, 0, 7]);
        bytes[20] = 44;
    }
    bytes.extend(&whole.bytes[headers + from..end]);
    if !v4 {
        set_ipv6_length(&mut bytes);
    }
    Frame::new(bytes)
}

/// The packet whose parts these are, in their order.
pub fn assembled(parts: &[Frame]) -> Frame {
    let v4 = parts[0].bytes[12..14] == [8, 0];
    let (headers, data) = if v4 { (34, 34) } else { (54, 62) };
    let mut bytes = parts[0].bytes[..headers].to_vec();
    for part in parts {
        bytes.extend(&part.bytes[data..]);
    }
    if v4 {
        let length = (bytes.len() - 14) as u16;
        bytes[16..18].copy_from_slice(&length.to_be_bytes());
        bytes[20..22].copy_from_slice(&[0, 0]);
        set_ipv4_sum(&mut bytes);
    } else {
        bytes[20] = parts[0].bytes[54];
        set_ipv6_length(&mut bytes);
    }
    Frame::new(bytes)
}

/// The fragment as one of another packet.
pub fn with_identification(mut fragment: Frame, id: u8) -> Frame {
    if fragment.bytes[12..14] == [8, 0] {
        fragment.bytes[19] = id;
        set_ipv4_sum(&mut fragment.bytes);
    } else {
        fragment.bytes[61] = id;
    }
    fragment
}

/// The packet as a first or later fragment.
pub fn fragment(mut frame: Frame, first: bool) -> Frame {
    if frame.bytes[12..14] == [8, 0] {
        frame.bytes[20..22].copy_from_slice(&if first { [0x20, 0] } else { [0, 0xb9] });
        set_ipv4_sum(&mut frame.bytes);
        return frame;
    }
    let next = frame.bytes[20];
    frame.bytes[20] = 44;
    let bits = if first { [0, 1] } else { [5, 0xc8] };
    let header = [next, 0, bits[0], bits[1], 0, 0, 0, 7];
    frame.bytes.splice(54..54, header);
    set_ipv6_length(&mut frame.bytes);
    frame
}

/// The IPv6 packet with a destination options header before the transport header.
pub fn with_extension(mut frame: Frame) -> Frame {
    let next = frame.bytes[20];
    frame.bytes[20] = 60;
    frame.bytes.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
    set_ipv6_length(&mut frame.bytes);
    frame
}

/// The IPv6 packet with an IPv4-mapped source.
pub fn with_mapped_source(mut frame: Frame, source: [u8; 4]) -> Frame {
    frame.bytes[22..38].copy_from_slice(&Addr::v4(source).bytes);
    frame
}

/// An ARP request of `src` for `dst`.
pub fn arp(src: [u8; 4], dst: [u8; 4]) -> Frame {
    let mut bytes = vec![0xff; 6];
    bytes.extend(SENDER);
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(SENDER);
    bytes.extend(src);
    bytes.extend([0; 6]);
    bytes.extend(dst);
    Frame::new(bytes)
}

/// A neighbor solicitation of `src` for `target`.
pub fn solicitation(src: [u8; 16], target: [u8; 16]) -> Frame {
    let mut l4 = vec![135, 0, 0, 0, 0, 0, 0, 0];
    l4.extend(target);
    l4.extend([1, 1]);
    l4.extend(SENDER);
    let mut group = [0; 16];
    group[..2].copy_from_slice(&[0xff, 2]);
    group[11..13].copy_from_slice(&[1, 0xff]);
    group[13..].copy_from_slice(&target[13..]);
    let e = Ends { src: IpAddr::from(src), sport: 0, dst: IpAddr::from(group), dport: 0 };
    let mut frame = finish(e, ICMP6, l4, Some(2));
    frame.bytes[21] = 255;
    frame
}

fn finish(e: Ends, protocol: u8, mut l4: Vec<u8>, sum_at: Option<usize>) -> Frame {
    if let Some(at) = sum_at {
        let sum = transport_sum(&e.src, &e.dst, protocol, &l4);
        let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
        l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut bytes = RECEIVER.to_vec();
    bytes.extend(SENDER);
    match (e.src, e.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes.extend([8, 0, 0x45, 0]);
            bytes.extend((20 + l4.len() as u16).to_be_bytes());
            bytes.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            set_ipv4_sum(&mut bytes);
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((l4.len() as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
        }
        _ => unreachable!("both ends are of one family"),
    }
    bytes.extend(l4);
    Frame::new(bytes)
}

fn set_ipv4_sum(bytes: &mut [u8]) {
    bytes[24..26].copy_from_slice(&[0, 0]);
    let sum = !folded(words(&bytes[14..34]));
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn set_ipv6_length(bytes: &mut [u8]) {
    let length = bytes.len() as u16 - 54;
    bytes[18..20].copy_from_slice(&length.to_be_bytes());
}

fn words(bytes: &[u8]) -> u64 {
    let pairs = bytes.chunks(2).map(|c| u16::from_be_bytes([c[0], c.get(1).copied().unwrap_or(0)]));
    pairs.map(u64::from).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The transport checksum from scratch; over a packet with its checksum it is 0.
fn transport_sum(src: &IpAddr, dst: &IpAddr, protocol: u8, l4: &[u8]) -> u16 {
    let pseudo = match (src, dst) {
        _ if protocol == ICMP => 0,
        (IpAddr::V4(src), IpAddr::V4(dst)) => words(&src.octets()) + words(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => words(&src.octets()) + words(&dst.octets()),
        _ => unreachable!("both ends are of one family"),
    };
    let rest = if protocol == ICMP { 0 } else { u64::from(protocol) + l4.len() as u64 };
    !folded(pseudo + rest + words(l4))
}

/// Whether the checksums of an unfragmented packet are right, recomputed from nothing.
pub fn sums_are_right(frame: &Frame) -> bool {
    let mut h = Headers::default();
    if !headers::parse(frame, &mut h) || h.fragment != Fragment::No || h.l4.kind == L4Kind::Malformed {
        return false;
    }
    if h.src.is_v4() && folded(words(&frame.bytes[14..34])) != 0xffff {
        return false;
    }
    let l4 = &frame.bytes[h.l4.offset as usize..];
    match h.l4.protocol {
        UDP if l4[6..8] == [0, 0] => h.src.is_v4(),
        TCP | UDP | ICMP | ICMP6 => transport_sum(&ip(h.src), &ip(h.dst), h.l4.protocol, l4) == 0,
        _ => true,
    }
}

/// An address of the maps.
pub fn ip(addr: Addr) -> IpAddr {
    let ip = std::net::Ipv6Addr::from(addr.bytes);
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
}

/// Source and destination of a packet, with ports (echo: the identifier as source port).
pub fn ends(frame: &Frame) -> Option<Ends> {
    let mut h = Headers::default();
    if !headers::parse(frame, &mut h) {
        return None;
    }
    Some(Ends { src: ip(h.src), sport: h.l4.src_port | h.l4.echo_id, dst: ip(h.dst), dport: h.l4.dst_port })
}
