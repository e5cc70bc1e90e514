//! Packets that no ordinary socket sends.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, sendto, setsockopt,
    socket, sockopt,
};

/// The kernel makes the IP header; it needs no module for that.
pub(crate) fn send_sctp_init(own: IpAddr, to: IpAddr) -> nix::Result<()> {
    let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0)))?;
    let mut init = [0; 32];
    init[..4].copy_from_slice(&[0x9c, 0x40, 0x1f, 0x90]);
    // Chunk type and length, tag, window, streams of both directions, first sequence number (RFC 9260, 3.3.2).
    init[12..].copy_from_slice(&[1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    // Connection tracking takes none with another checksum.
    let sum = crc32c(&init);
    init[8..12].copy_from_slice(&sum.to_le_bytes());
    sendto(socket.as_raw_fd(), &init, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty())?;
    Ok(())
}

/// SCTP's checksum of a packet that has none yet (RFC 9260, appendix A).
fn crc32c(packet: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
    !packet.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}

/// The checksum of a TCP segment that has none yet (RFC 9293, 3.1).
fn checksum(own: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let protocol_and_length = [0, 6, 0, u8::try_from(segment.len()).unwrap()];
    let bytes = [octets(own), octets(to), protocol_and_length.to_vec(), segment.to_vec()].concat();
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

/// A TCP segment without data, out of any window. In the name of somebody else it is sent where `ipv6/ip_nonlocal_bind` is set.
pub(crate) fn send_segment(own: IpAddr, to: IpAddr, ports: (u16, u16), flags: u8) -> nix::Result<()> {
    let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    if own.is_ipv4() {
        // Or there is no route from a foreign address.
        setsockopt(&socket, sockopt::IpTransparent, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0)))?;
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&ports.0.to_be_bytes());
    segment[2..4].copy_from_slice(&ports.1.to_be_bytes());
    (segment[12], segment[13]) = (5 << 4, flags);
    let sum = checksum(own, to, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    sendto(socket.as_raw_fd(), &segment, &SockaddrStorage::from(SocketAddr::new(to, 0)), MsgFlags::empty())?;
    Ok(())
}
