//! Reads the headers that decide: Ethernet source, IP (with IPv6 extension headers), fragmentation, transport.

use crate::addr::Addr;
use crate::packet::{ETH, IPV4, Packet};
use crate::protocol::{ICMP, ICMP6, SCTP, TCP, UDP};

/// FIN flag of TCP.
pub const FIN: u8 = 0x01;
/// SYN flag of TCP.
pub const SYN: u8 = 0x02;
/// RST flag of TCP.
pub const RST: u8 = 0x04;
/// ACK flag of TCP.
pub const ACK: u8 = 0x10;

/// Number of IPv6's fragment header.
const FRAGMENT: u8 = 44;

/// How many IPv6 extension headers are walked.
const EXTENSIONS: u32 = 4;

/// What follows the IP header.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Kind {
    /// TCP segment.
    Tcp,
    /// UDP datagram.
    Udp,
    /// SCTP packet.
    Sctp,
    /// ICMP or ICMPv6 echo request.
    EchoRequest,
    /// ICMP or ICMPv6 echo reply.
    EchoReply,
    /// ICMP or ICMPv6 error. The packet that it quotes starts 8 bytes behind [`L4::offset`], with its IP header.
    IcmpError,
    /// IPv6 neighbor discovery: neighbor solicitation.
    Solicitation,
    /// IPv6 neighbor discovery: anything else.
    Discovery,
    /// Another protocol.
    Other,
    /// Nothing that can be read: a fragment other than the first.
    Absent,
    /// It is cut short, or the headers in front of it are wrong.
    Malformed,
}

/// The transport header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L4 {
    /// Where it starts in the packet.
    pub offset: u32,
    /// Source port, host byte order; 0 without ports.
    pub src_port: u16,
    /// Destination port, host byte order; 0 without ports.
    pub dst_port: u16,
    /// Sequence number of a TCP segment; of no meaning otherwise.
    pub sequence: u32,
    /// Identifier of an ICMP echo; 0 otherwise.
    pub echo_id: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags; 0 otherwise.
    pub flags: u8,
    /// What it is.
    pub kind: L4Kind,
}

/// Whether a packet is a fragment.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    No,
    /// The first one, which has the transport header.
    First,
    /// A later one.
    Later,
}

/// The headers of a packet. In the kernel they lie in map memory, not on the stack: the verifier does not track
/// what is there, so the many ways through the parser end in one state instead of multiplying.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// IP source.
    pub src: Addr,
    /// IP destination.
    pub dst: Addr,
    /// The transport header.
    pub l4: L4,
    /// Source MAC of the frame.
    pub mac: [u8; 6],
    /// Fragmentation.
    pub fragment: Fragment,
    /// It has IPv4 options or an IPv6 routing header, so that it may be for somebody else than its destination.
    pub has_route: bool,
    /// Identification of the packet that a fragment is of (IPv4: 16 bits); of no meaning for whole packets.
    pub fragment_id: u32,
}

impl Default for Headers {
    #[inline(always)]
    fn default() -> Self {
        let kind = L4Kind::Other;
        Self {
            src: Addr::ANY,
            dst: Addr::ANY,
            l4: L4 {
                offset: 0,
                src_port: 0,
                dst_port: 0,
                sequence: 0,
                echo_id: 0,
                protocol: 0,
                flags: 0,
                kind,
            },
            mac: [0; 6],
            fragment: Fragment::No,
            has_route: false,
            fragment_id: 0,
        }
    }
}

impl Headers {
    /// Whether the packet's flow can be looked up. Of later fragments, ICMP errors and other protocols it cannot.
    #[inline(always)]
    pub const fn is_tracked(&self) -> bool {
        matches!(self.l4.kind, L4Kind::Tcp | L4Kind::Udp | L4Kind::EchoRequest | L4Kind::EchoReply)
    }

    /// Whether this is IPv6 neighbor discovery.
    #[inline(always)]
    pub const fn is_discovery(&self) -> bool {
        matches!(self.l4.kind, L4Kind::Solicitation | L4Kind::Discovery)
    }

    /// Whether this is an ICMP or ICMPv6 echo.
    #[inline(always)]
    pub const fn is_echo(&self) -> bool {
        matches!(self.l4.kind, L4Kind::EchoRequest | L4Kind::EchoReply)
    }

    /// Whether this is the first segment of a TCP connection.
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        matches!(self.l4.kind, L4Kind::Tcp) && self.l4.flags & (SYN | ACK) == SYN
    }

    /// Whether this is a SYN or SYN-ACK, which announces the segment size.
    #[inline(always)]
    pub const fn has_mss(&self) -> bool {
        matches!(self.l4.kind, L4Kind::Tcp) && self.l4.flags & SYN != 0
    }

    /// Whether the packet can be the first of a flow.
    #[inline(always)]
    pub const fn opens_flow(&self) -> bool {
        self.is_syn() || matches!(self.l4.kind, L4Kind::Udp | L4Kind::EchoRequest)
    }
}

/// Reads the headers of an IPv4 or IPv6 packet; `false` if it has no addresses to decide by: they are cut off, or
/// they are IPv4-mapped ones in an IPv6 header, which nothing may send and which every map would take for IPv4.
#[inline(never)]
pub fn parse<P: Packet>(p: &P, h: &mut Headers) -> bool {
    h.l4.src_port = 0;
    h.l4.dst_port = 0;
    h.l4.echo_id = 0;
    h.l4.flags = 0;
    h.l4.kind = L4Kind::Other;
    h.fragment = Fragment::No;
    h.has_route = false;
    let read = if p.protocol() == IPV4 { parse_v4(p, h) } else { parse_v6(p, h) };
    if read && matches!(h.l4.kind, L4Kind::Other) && parse_l4(p, &mut h.l4, h.src.is_v4()).is_none() {
        h.l4.kind = L4Kind::Malformed;
    }
    read
}

#[inline(always)]
fn parse_l4<P: Packet>(p: &P, l4: &mut L4, v4: bool) -> Option<()> {
    match l4.protocol {
        TCP => {
            let words: [u32; 4] = p.load_words(l4.offset)?;
            set_ports(l4, words[0]);
            l4.sequence = u32::from_be(words[1]);
            l4.flags = words[3].to_ne_bytes()[1];
            l4.kind = L4Kind::Tcp;
        }
        UDP | SCTP => {
            let words: [u32; 2] = p.load_words(l4.offset)?;
            set_ports(l4, words[0]);
            l4.kind = if l4.protocol == UDP { L4Kind::Udp } else { L4Kind::Sctp };
        }
        ICMP | ICMP6 => {
            let words: [u32; 2] = p.load_words(l4.offset)?;
            l4.kind = icmp_kind(l4.protocol, words[0].to_ne_bytes()[0], v4);
            if matches!(l4.kind, L4Kind::EchoRequest | L4Kind::EchoReply) {
                l4.echo_id = (u32::from_be(words[1]) >> 16) as u16;
            }
        }
        _ => {}
    }
    Some(())
}

#[inline(always)]
fn set_ports(l4: &mut L4, word: u32) {
    let word = u32::from_be(word);
    l4.src_port = (word >> 16) as u16;
    l4.dst_port = word as u16;
}

#[inline(always)]
const fn icmp_kind(protocol: u8, ty: u8, v4: bool) -> L4Kind {
    match (v4, protocol, ty) {
        (true, ICMP, 8) | (false, ICMP6, 128) => L4Kind::EchoRequest,
        (true, ICMP, 0) | (false, ICMP6, 129) => L4Kind::EchoReply,
        (true, ICMP, 3 | 4 | 5 | 11 | 12) | (false, ICMP6, 1..=4) => L4Kind::IcmpError,
        (false, ICMP6, 135) => L4Kind::Solicitation,
        (false, ICMP6, 133 | 134 | 136 | 137) => L4Kind::Discovery,
        _ => L4Kind::Other,
    }
}

/// Where reading starts, so that the IP header is aligned: its first word is the fourth.
pub const START: u32 = 2;

#[inline(always)]
fn parse_v4<P: Packet>(p: &P, h: &mut Headers) -> bool {
    let Some(w) = p.load_words::<8>(START) else { return false };
    let [version, ..] = w[3].to_ne_bytes();
    let header = u32::from(version & 0x0f) * 4;
    let fragment = u32::from_be(w[4]);
    if version >> 4 != 4 || header < 20 {
        h.l4.kind = L4Kind::Malformed;
    } else {
        set_fragment(h, fragment & 0x1fff, fragment & 0x2000);
        h.fragment_id = fragment >> 16;
        h.has_route = header > 20;
    }
    h.mac = mac(w[1], w[2]);
    h.src = Addr::v4(w[6].to_ne_bytes());
    h.dst = Addr::v4(w[7].to_ne_bytes());
    h.l4.protocol = w[5].to_ne_bytes()[1];
    h.l4.offset = ETH + header;
    true
}

#[inline(always)]
fn parse_v6<P: Packet>(p: &P, h: &mut Headers) -> bool {
    let Some(w) = p.load_words::<13>(START) else { return false };
    h.mac = mac(w[1], w[2]);
    h.src = Addr::from_words([w[5], w[6], w[7], w[8]]);
    h.dst = Addr::from_words([w[9], w[10], w[11], w[12]]);
    h.l4.protocol = w[4].to_ne_bytes()[2];
    h.l4.offset = ETH + 40;
    if w[3].to_ne_bytes()[0] >> 4 != 6 || skip_extensions(p, h).is_none() {
        h.l4.kind = L4Kind::Malformed;
    }
    !h.src.is_v4() && !h.dst.is_v4()
}

#[inline(always)]
fn set_fragment(h: &mut Headers, offset: u32, more: u32) {
    if offset != 0 {
        h.fragment = Fragment::Later;
        h.l4.kind = L4Kind::Absent;
    } else if more != 0 {
        h.fragment = Fragment::First;
    }
}

#[inline(always)]
const fn mac(first: u32, second: u32) -> [u8; 6] {
    let (a, b) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1]]
}

/// Walks to the first header that is no extension, or to the end of a later fragment's headers.
#[inline(always)]
fn skip_extensions<P: Packet>(p: &P, h: &mut Headers) -> Option<()> {
    for _ in 0..EXTENSIONS {
        match h.l4.protocol {
            0 | 43 | 60 => {
                let b: [u8; 2] = p.load(h.l4.offset)?;
                h.has_route |= h.l4.protocol == 43;
                h.l4.protocol = b[0];
                h.l4.offset += (u32::from(b[1]) + 1) * 8;
            }
            FRAGMENT => {
                let words: [u32; 2] = p.load_words(h.l4.offset)?;
                h.l4.protocol = words[0].to_ne_bytes()[0];
                h.l4.offset += 8;
                let fragment = u32::from_be(words[0]);
                set_fragment(h, fragment & 0xfff8, fragment & 1);
                h.fragment_id = words[1];
                if matches!(h.fragment, Fragment::Later) {
                    return Some(());
                }
            }
            _ => return Some(()),
        }
    }
    Some(())
}

/// Bytes between an ICMP error's header and the packet that it quotes.
const QUOTED: u32 = 8;

/// Reads the headers of the packet that an ICMP or ICMPv6 error quotes, of whose transport header there are 8 bytes:
/// addresses, protocol, ports. `false`: it is cut short, no first fragment, or has IPv6 extension headers other than the one
/// of a first fragment.
#[inline(never)]
pub fn parse_quoted<P: Packet>(p: &P, error: &Headers, h: &mut Headers) -> bool {
    h.l4.src_port = 0;
    h.l4.dst_port = 0;
    h.l4.echo_id = 0;
    h.l4.flags = 0;
    h.fragment = Fragment::No;
    let at = error.l4.offset + QUOTED;
    let v4 = error.src.is_v4();
    let read = if v4 { parse_quoted_v4(p, at, h) } else { parse_quoted_v6(p, at, h) };
    read && parse_quoted_l4(p, &mut h.l4, v4).is_some()
}

#[inline(always)]
fn parse_quoted_v4<P: Packet>(p: &P, at: u32, h: &mut Headers) -> bool {
    let Some(w) = p.load_words::<5>(at) else { return false };
    let [version, ..] = w[0].to_ne_bytes();
    let header = u32::from(version & 0x0f) * 4;
    h.src = Addr::v4(w[3].to_ne_bytes());
    h.dst = Addr::v4(w[4].to_ne_bytes());
    h.l4.protocol = w[2].to_ne_bytes()[1];
    h.l4.offset = at + header;
    let fragment = u32::from_be(w[1]) & 0x1fff;
    version >> 4 == 4 && header >= 20 && fragment == 0
}

#[inline(always)]
fn parse_quoted_v6<P: Packet>(p: &P, at: u32, h: &mut Headers) -> bool {
    let Some(w) = p.load_words::<10>(at) else { return false };
    h.src = Addr::from_words([w[2], w[3], w[4], w[5]]);
    h.dst = Addr::from_words([w[6], w[7], w[8], w[9]]);
    h.l4.protocol = w[1].to_ne_bytes()[2];
    h.l4.offset = at + 40;
    if w[0].to_ne_bytes()[0] >> 4 != 6 || h.src.is_v4() || h.dst.is_v4() {
        return false;
    }
    if h.l4.protocol == FRAGMENT {
        let Some(words) = p.load_words::<2>(h.l4.offset) else { return false };
        h.l4.protocol = words[0].to_ne_bytes()[0];
        h.l4.offset += 8;
        return u32::from_be(words[0]) & 0xfff8 == 0;
    }
    true
}

#[inline(always)]
fn parse_quoted_l4<P: Packet>(p: &P, l4: &mut L4, v4: bool) -> Option<()> {
    let words: [u32; 2] = p.load_words(l4.offset)?;
    l4.kind = match l4.protocol {
        TCP => L4Kind::Tcp,
        UDP => L4Kind::Udp,
        SCTP => L4Kind::Sctp,
        protocol => icmp_kind(protocol, words[0].to_ne_bytes()[0], v4),
    };
    match l4.kind {
        L4Kind::Tcp | L4Kind::Udp | L4Kind::Sctp => set_ports(l4, words[0]),
        L4Kind::EchoRequest | L4Kind::EchoReply => l4.echo_id = (u32::from_be(words[1]) >> 16) as u16,
        _ => return None,
    }
    Some(())
}
