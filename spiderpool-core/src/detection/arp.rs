//! ARP for IPv4 on Ethernet (RFC 826), without the Ethernet header.

use std::net::Ipv4Addr;

use crate::mac::MacAddr;

/// Hardware Ethernet, protocol IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const LENGTH: usize = 28;

/// A message, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Whether it asks or answers.
    pub operation: Operation,
    /// Who says it.
    pub sender_mac: MacAddr,
    /// The address that the sender calls its own; unspecified in a probe.
    pub sender: Ipv4Addr,
    /// The address that is asked for, or answered to.
    pub target: Ipv4Addr,
}

/// What a message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Asks.
    Request,
    /// Answers.
    Reply,
}

/// A request. With an unspecified sender it is a probe (RFC 5227 section 1.1), of which nobody learns anything; with sender
/// and target the same it is an announcement.
pub fn request(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend(KIND);
    bytes.extend(REQUEST.to_be_bytes());
    bytes.extend(mac.0);
    bytes.extend(sender.octets());
    bytes.extend([0; 6]);
    bytes.extend(target.octets());
    bytes
}

/// `None` for what is no ARP for IPv4 on Ethernet. Frames are padded: what follows is ignored.
pub fn parse(bytes: &[u8]) -> Option<Arp> {
    let bytes: &[u8; LENGTH] = bytes.first_chunk()?;
    let operation = match u16::from_be_bytes([bytes[6], bytes[7]]) {
        REQUEST => Operation::Request,
        REPLY => Operation::Reply,
        _ => return None,
    };
    let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let sender_mac = MacAddr([bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13]]);
    (bytes[..6] == KIND).then(|| Arp { operation, sender_mac, sender: address(14), target: address(24) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `arping -D -I eth0 10.6.0.9` of iputils sends it.
    #[test]
    fn a_probe_is_byte_for_byte_what_arping_sends() {
        let probe = request(MacAddr([2, 0, 0, 0, 0, 1]), Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 6, 0, 9));
        let expect = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 6, 0, 9];
        assert_eq!(probe, expect);
    }

    #[test]
    fn a_padded_reply_is_read_and_other_protocols_are_not() {
        let mac = MacAddr([2, 0, 0, 0, 0, 7]);
        let mut reply = request(mac, Ipv4Addr::new(10, 6, 0, 9), Ipv4Addr::UNSPECIFIED);
        reply[7] = 2;
        reply.extend([0; 18]);
        let arp = parse(&reply).unwrap();
        assert_eq!((arp.operation, arp.sender_mac), (Operation::Reply, mac));
        assert_eq!((arp.sender, arp.target), (Ipv4Addr::new(10, 6, 0, 9), Ipv4Addr::UNSPECIFIED));
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 3)] {
            let mut other = reply.clone();
            other[at] = value;
            assert_eq!(parse(&other), None, "byte {at}");
        }
        assert_eq!(parse(&reply[..27]), None);
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_input(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
