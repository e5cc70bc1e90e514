//! Tells the neighbors of a link which MAC an address has now: gratuitous ARP, unsolicited neighbor
//! advertisement.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use spiderpool_core::detection::{arp, ndp};
use spiderpool_core::mac::MacAddr;
use thiserror::Error;

/// An address could not be announced.
#[derive(Debug, Error)]
#[error("announce {address} on link {index}: {source}")]
pub struct AnnounceError {
    /// The address.
    pub address: IpAddr,
    /// The link.
    pub index: u32,
    /// Why.
    pub source: io::Error,
}

/// Sends one announcement from the calling thread's namespace. The link must be up.
///
/// Closing the packet socket waits for an RCU grace period, about 10 ms: where the kernel's own `arp_notify` and
/// `ndisc_notify` do, they are cheaper.
pub fn announce(index: u32, mac: MacAddr, address: IpAddr) -> Result<(), AnnounceError> {
    let frame = match address {
        IpAddr::V4(v4) => gratuitous_arp(mac, v4),
        IpAddr::V6(v6) => unsolicited_advertisement(mac, v6),
    };
    send(index, &frame).map_err(|source| AnnounceError { address, index, source })
}

/// RFC 5227 section 3: an ARP request with sender and target protocol address the same, to everyone.
fn gratuitous_arp(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    frame(MacAddr([0xff; 6]), mac, 0x0806, &arp::request(mac, address, address))
}

/// RFC 4861 section 7.2.6: a neighbor advertisement with the override flag, to all nodes.
fn unsolicited_advertisement(mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    frame(ndp::group_mac(ndp::ALL_NODES), mac, 0x86dd, &ndp::unsolicited_advertisement(mac, address))
}

fn frame(to: MacAddr, from: MacAddr, protocol: u16, payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &protocol.to_be_bytes(), payload].concat()
}

/// A packet socket sends the frame as it is; protocol 0 means that it receives nothing.
fn send(index: u32, frame: &[u8]) -> io::Result<()> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)?;
    // SAFETY: sockaddr_ll is a plain C struct for which all zeroes is a valid value.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index as i32;
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&frame[..6]);
    // SAFETY: the frame and the address outlive the call, and their lengths are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x0a, 0x1b, 0x0a, 6, 0xd4, 0x91]);

    #[test]
    fn gratuitous_arp_names_the_address_twice() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(10, 6, 212, 145));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[28..32], [10, 6, 212, 145]);
        assert_eq!(frame[38..42], [10, 6, 212, 145]);
    }

    #[test]
    fn an_advertisement_goes_to_all_nodes() {
        let frame = unsolicited_advertisement(MAC, "fd00:10:6::91".parse().unwrap());
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 1, 0x0a, 0x1b, 0x0a, 6, 0xd4, 0x91, 0x86, 0xdd]);
    }
}
