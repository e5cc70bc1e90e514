//! The far ends of the pod's NICs: sends frames in anybody's name, and sees what comes out of the pod.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::libc;
use spiderpool_ebpf_common::headers::{self, Headers, L4Kind};
use spiderpool_ebpf_common::model::Frame;
use spiderpool_ebpf_common::model::frames::{self, Ends};

/// `PACKET_IGNORE_OUTGOING` of linux/if_packet.h.
const IGNORE_OUTGOING: libc::c_int = 23;
/// How much waits to be read at most.
const BUFFER: libc::c_int = 4 << 20;
const ETH_ALL: u16 = libc::ETH_P_ALL as u16;
/// Those flags of TCP that say what a segment is.
const FLAGS: u8 = headers::SYN | headers::ACK | headers::FIN | headers::RST;

pub(crate) type Mac = [u8; 6];

/// A packet socket on one device.
#[derive(Debug)]
pub(crate) struct Port(OwnedFd);

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// With these flags.
    Tcp(u8),
    Udp,
    EchoRequest,
    EchoReply,
    /// An ICMP error; the ports are those of the packet that it quotes.
    Error,
}

/// A packet on its way, without what does not say where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
}

/// What a port has seen.
#[derive(Debug)]
pub(crate) enum Seen {
    Packet {
        header: Header,
        next_hop: Mac,
        sequence: u32,
    },
    /// An answer to an ARP request of this MAC.
    ArpReply(Mac),
}

fn check(result: libc::c_int, what: &str) {
    assert!(result >= 0, "{what}: {}", std::io::Error::last_os_error());
}

impl Port {
    /// On a device of this thread's network namespace.
    pub(crate) fn open(device: &str) -> Self {
        let index = nix::net::if_::if_nametoindex(device).unwrap();
        let flags = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no memory is handed over.
        let fd = unsafe { libc::socket(libc::AF_PACKET, flags, 0) };
        check(fd, "packet socket");
        // SAFETY: a new descriptor that nobody else has.
        let port = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        port.set(libc::SOL_PACKET, IGNORE_OUTGOING, 1);
        port.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER);
        // SAFETY: integers and bytes; all zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETH_ALL.to_be();
        address.sll_ifindex = index as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the kernel reads the address, whose length is given.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), length) }, device);
        port
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel reads an integer.
        let result =
            unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const value).cast(), length) };
        check(result, "option of a packet socket");
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        // SAFETY: the kernel reads the bytes.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        assert_eq!(sent, bytes.len() as isize, "{}", std::io::Error::last_os_error());
    }

    /// The next packet that is of interest, if there is one.
    pub(crate) fn receive(&self) -> Option<Seen> {
        let mut bytes = [0u8; 2048];
        loop {
            // SAFETY: the kernel writes into the buffer, whose length is given.
            let length = unsafe { libc::recv(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
            if length < 0 {
                return None;
            }
            if let Some(seen) = parse(&bytes[..length as usize]) {
                return Some(seen);
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Seen> {
    // ARP (RFC 826): operation 2 at 20, the target's MAC at 32.
    if bytes.get(12..14)? == [8, 6] {
        return (bytes.get(20..22)? == [0, 2]).then(|| Seen::ArpReply(bytes[32..38].try_into().unwrap()));
    }
    let (mut h, mut quoted) = (Headers::default(), Headers::default());
    let frame = Frame::new(bytes.to_vec());
    if !headers::parse(&frame, &mut h) || h.dst.is_link_scope() || h.is_discovery() {
        return None;
    }
    let kind = match h.l4.kind {
        L4Kind::Tcp => Kind::Tcp(h.l4.flags & FLAGS),
        L4Kind::Udp => Kind::Udp,
        L4Kind::EchoRequest => Kind::EchoRequest,
        L4Kind::EchoReply => Kind::EchoReply,
        L4Kind::IcmpError => Kind::Error,
        _ => return None,
    };
    let ports = match kind {
        Kind::Error => headers::parse_quoted(&frame, &h, &mut quoted)
            .then_some((quoted.l4.dst_port, quoted.l4.src_port))?,
        Kind::EchoRequest => (h.l4.echo_id, 0),
        Kind::EchoReply => (0, h.l4.echo_id),
        Kind::Tcp(_) | Kind::Udp => (h.l4.src_port, h.l4.dst_port),
    };
    let header = Header {
        kind,
        src: SocketAddr::new(frames::ip(h.src), ports.0),
        dst: SocketAddr::new(frames::ip(h.dst), ports.1),
    };
    Some(Seen::Packet { header, next_hop: bytes[..6].try_into().unwrap(), sequence: h.l4.sequence })
}

const fn ends(src: SocketAddr, dst: SocketAddr) -> Ends {
    Ends { src: src.ip(), sport: src.port(), dst: dst.ip(), dport: dst.port() }
}

pub(crate) fn udp(src: SocketAddr, dst: SocketAddr) -> Frame {
    frames::udp(ends(src, dst), b"call")
}

/// The identifier is the caller's port.
pub(crate) fn echo(src: SocketAddr, dst: SocketAddr, is_request: bool) -> Frame {
    let id = src.port() | dst.port();
    frames::echo(ends(src, dst), is_request, id, b"call")
}

/// A TCP segment. The one of the model acknowledges nothing.
pub(crate) fn tcp(
    src: SocketAddr,
    dst: SocketAddr,
    flags: u8,
    (sequence, acknowledged): (u32, u32),
) -> Frame {
    let mut frame = frames::tcp(ends(src, dst), flags, &[]);
    let at = if src.is_ipv4() { 34 } else { 54 };
    frame.bytes[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
    frame.bytes[at + 8..at + 12].copy_from_slice(&acknowledged.to_be_bytes());
    // Both words were zero (RFC 1624).
    let old = u16::from_be_bytes([frame.bytes[at + 16], frame.bytes[at + 17]]);
    let mut sum = u32::from(!old);
    for word in [sequence >> 16, sequence & 0xffff, acknowledged >> 16, acknowledged & 0xffff] {
        sum += word;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame.bytes[at + 16..at + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

/// An ARP request from a MAC of its own, whose answer tells that everything before it is done.
pub(crate) fn arp_request(from: Mac, sender: IpAddr, to: Mac, target: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (sender, target) else { unreachable!("ARP is of IPv4") };
    let mut bytes = to.to_vec();
    bytes.extend(from);
    bytes.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes.extend(from);
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes
}
