//! Reads the headers that decide: Ethernet source, IP (with IPv6 extension headers), transport ports.

use crate::addr::Addr;
use crate::life::protocol::{ICMP, ICMP6, TCP, UDP};
use crate::packet::{ETH, IPV4, Packet};

/// FIN flag of TCP.
pub const FIN: u8 = 0x01;
/// SYN flag of TCP.
pub const SYN: u8 = 0x02;
/// RST flag of TCP.
pub const RST: u8 = 0x04;
/// ACK flag of TCP.
pub const ACK: u8 = 0x10;

/// How many IPv6 extension headers are walked.
const EXTENSIONS: u32 = 4;

/// What a packet is to the logic.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP segment.
    Tcp,
    /// UDP datagram.
    Udp,
    /// ICMP or ICMPv6 echo request.
    EchoRequest,
    /// ICMP or ICMPv6 echo reply.
    EchoReply,
    /// ICMP or ICMPv6 error.
    IcmpError,
    /// IPv6 neighbour discovery: neighbour solicitation.
    Solicitation,
    /// IPv6 neighbour discovery: anything else.
    Discovery,
    /// A fragment, first or not.
    Fragment,
    /// Another protocol.
    Other,
    /// Its addresses can be read, but what follows them is wrong or cut short.
    Malformed,
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
    /// Offset of the transport header.
    pub l4: u32,
    /// Source port, host byte order; 0 without ports.
    pub src_port: u16,
    /// Destination port, host byte order; 0 without ports.
    pub dst_port: u16,
    /// Identifier of an ICMP echo; 0 otherwise.
    pub echo_id: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags; 0 otherwise.
    pub flags: u8,
    /// What it is.
    pub kind: Kind,
    /// Who sent the frame.
    pub mac: [u8; 6],
}

impl Default for Headers {
    #[inline(always)]
    fn default() -> Self {
        Self {
            src: Addr::ANY,
            dst: Addr::ANY,
            l4: 0,
            src_port: 0,
            dst_port: 0,
            echo_id: 0,
            protocol: 0,
            flags: 0,
            kind: Kind::Other,
            mac: [0; 6],
        }
    }
}

impl Headers {
    /// Whether the packet belongs to a flow that can be looked up.
    #[inline(always)]
    pub const fn is_flow(&self) -> bool {
        matches!(self.kind, Kind::Tcp | Kind::Udp | Kind::EchoRequest | Kind::EchoReply)
    }

    /// Whether this is the first segment of a TCP connection.
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        matches!(self.kind, Kind::Tcp) && self.flags & (SYN | ACK) == SYN
    }

    /// Whether this segment tells the other side how long segments may be: SYN or SYN-ACK.
    #[inline(always)]
    pub const fn is_handshake(&self) -> bool {
        matches!(self.kind, Kind::Tcp) && self.flags & SYN != 0
    }

    /// Whether the packet can be the first of a flow.
    #[inline(always)]
    pub const fn can_start(&self) -> bool {
        self.is_syn() || matches!(self.kind, Kind::Udp | Kind::EchoRequest)
    }
}

/// Reads the headers of an IPv4 or IPv6 packet; `false` if not even its addresses can be read.
#[inline(never)]
pub fn parse<P: Packet>(p: &P, h: &mut Headers) -> bool {
    h.src_port = 0;
    h.dst_port = 0;
    h.echo_id = 0;
    h.flags = 0;
    h.kind = Kind::Other;
    let read = if p.protocol() == IPV4 { parse_v4(p, h) } else { parse_v6(p, h) };
    if read && matches!(h.kind, Kind::Other) && parse_transport(p, h).is_none() {
        h.kind = Kind::Malformed;
    }
    read
}

#[inline(always)]
fn parse_transport<P: Packet>(p: &P, h: &mut Headers) -> Option<()> {
    match h.protocol {
        TCP => {
            let words: [u32; 4] = p.load_words(h.l4)?;
            set_ports(h, words[0]);
            h.flags = words[3].to_ne_bytes()[1];
            h.kind = Kind::Tcp;
        }
        UDP => {
            let words: [u32; 2] = p.load_words(h.l4)?;
            set_ports(h, words[0]);
            h.kind = Kind::Udp;
        }
        ICMP | ICMP6 => {
            let words: [u32; 2] = p.load_words(h.l4)?;
            h.kind = icmp_kind(h.protocol, words[0].to_ne_bytes()[0], h.src.is_v4());
            if matches!(h.kind, Kind::EchoRequest | Kind::EchoReply) {
                h.echo_id = (u32::from_be(words[1]) >> 16) as u16;
            }
        }
        _ => {}
    }
    Some(())
}

#[inline(always)]
fn set_ports(h: &mut Headers, word: u32) {
    let word = u32::from_be(word);
    h.src_port = (word >> 16) as u16;
    h.dst_port = word as u16;
}

#[inline(always)]
const fn icmp_kind(protocol: u8, ty: u8, v4: bool) -> Kind {
    match (v4, protocol, ty) {
        (true, ICMP, 8) | (false, ICMP6, 128) => Kind::EchoRequest,
        (true, ICMP, 0) | (false, ICMP6, 129) => Kind::EchoReply,
        (true, ICMP, 3 | 4 | 5 | 11 | 12) | (false, ICMP6, 1..=4) => Kind::IcmpError,
        (false, ICMP6, 135) => Kind::Solicitation,
        (false, ICMP6, 133 | 134 | 136 | 137) => Kind::Discovery,
        _ => Kind::Other,
    }
}

/// Where reading starts, so that the IP header is aligned: its first word is the fourth.
const START: u32 = 2;

#[inline(always)]
fn parse_v4<P: Packet>(p: &P, h: &mut Headers) -> bool {
    let Some(w) = p.load_words::<8>(START) else { return false };
    let [version, ..] = w[3].to_ne_bytes();
    let header = u32::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header < 20 {
        h.kind = Kind::Malformed;
    } else if u32::from_be(w[4]) & 0x3fff != 0 {
        h.kind = Kind::Fragment;
    }
    h.mac = mac(w[1], w[2]);
    h.src = Addr::v4(w[6].to_ne_bytes());
    h.dst = Addr::v4(w[7].to_ne_bytes());
    h.protocol = w[5].to_ne_bytes()[1];
    h.l4 = ETH + header;
    true
}

#[inline(always)]
fn parse_v6<P: Packet>(p: &P, h: &mut Headers) -> bool {
    let Some(w) = p.load_words::<13>(START) else { return false };
    h.mac = mac(w[1], w[2]);
    h.src = Addr::from_words([w[5], w[6], w[7], w[8]]);
    h.dst = Addr::from_words([w[9], w[10], w[11], w[12]]);
    h.protocol = w[4].to_ne_bytes()[2];
    h.l4 = ETH + 40;
    if w[3].to_ne_bytes()[0] >> 4 != 6 || skip_extensions(p, h).is_none() {
        h.kind = Kind::Malformed;
    }
    true
}

#[inline(always)]
const fn mac(first: u32, second: u32) -> [u8; 6] {
    let (a, b) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1]]
}

/// Walks to the first header that is no extension.
#[inline(always)]
fn skip_extensions<P: Packet>(p: &P, h: &mut Headers) -> Option<()> {
    for _ in 0..EXTENSIONS {
        match h.protocol {
            0 | 43 | 60 => {
                let b: [u8; 2] = p.load(h.l4)?;
                h.protocol = b[0];
                h.l4 += (u32::from(b[1]) + 1) * 8;
            }
            44 => {
                let b: [u8; 4] = p.load(h.l4)?;
                h.protocol = b[0];
                h.l4 += 8;
                if u16::from_be_bytes([b[2], b[3]]) & 0xfff9 != 0 {
                    h.kind = Kind::Fragment;
                    return Some(());
                }
            }
            _ => return Some(()),
        }
    }
    Some(())
}
