//! Neighbor discovery for IPv6 on Ethernet (RFC 4861), without the Ethernet header.

use std::net::Ipv6Addr;

use crate::mac::MacAddr;

/// Everybody on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
const HEADER: usize = 40;
/// Type, code, checksum, flags, target.
const FIXED: usize = 24;
/// Anything that has passed a router has less (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A message that is valid by RFC 4861 section 7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks for an address.
    Solicitation {
        /// `None` of a node that is about to use the target itself.
        source: Option<Ipv6Addr>,
        /// The address.
        target: Ipv6Addr,
    },
    /// Somebody has an address.
    Advertisement {
        /// The address.
        target: Ipv6Addr,
        /// Its MAC, if the message says it.
        mac: Option<MacAddr>,
    },
}

/// Asks for an address by its solicited-node group. Without a source it is what a node asks that is about to use the address
/// (RFC 4862 section 5.4.2), and everybody is answered.
pub fn solicitation(mac: MacAddr, source: Option<Ipv6Addr>, target: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    if source.is_some() {
        message.extend([SOURCE_MAC, 1]);
        message.extend(mac.0);
    }
    packet(source.unwrap_or(Ipv6Addr::UNSPECIFIED), solicited_node(target), message)
}

/// Tells everybody which MAC an address has now (RFC 4861 section 7.2.6).
pub fn unsolicited_advertisement(mac: MacAddr, address: Ipv6Addr) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    message.extend([TARGET_MAC, 1]);
    message.extend(mac.0);
    packet(address, ALL_NODES, message)
}

/// The group in which a node with this address listens (RFC 4291 section 2.7.1).
pub fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of a group (RFC 2464 section 7).
pub fn group_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(source, destination, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = Vec::with_capacity(HEADER + message.len());
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend((message.len() as u16).to_be_bytes());
    bytes.extend([ICMPV6, HOP_LIMIT]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(message);
    bytes
}

/// Of ICMPv6 (RFC 4443 section 2.3). With the checksum in place it is 0.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let length = (message.len() as u32).to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, ICMPV6]];
    let words = pseudo.into_iter().chain([message]).flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// `None` for other packets, and for those that RFC 4861 has ignored.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let (length, next) = (usize::from(u16::from_be_bytes([header[4], header[5]])), header[6]);
    if header[0] >> 4 != 6 || next != ICMPV6 || header[7] != HOP_LIMIT {
        return None;
    }
    let address = |from: &[u8]| from.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
    let (source, destination) = (address(&header[8..])?, address(&header[24..])?);
    // What follows is padding.
    let message = bytes[HEADER..].get(..length)?;
    if message.len() < FIXED || message[1] != 0 || checksum(source, destination, message) != 0 {
        return None;
    }
    let target = address(&message[8..])?;
    let (flags, options) = (message[4], read_options(&message[FIXED..])?);
    if target.is_multicast() {
        return None;
    }
    match message[0] {
        SOLICITATION => {
            let source = Some(source).filter(|source| !source.is_unspecified());
            let is_to_group = destination == solicited_node(target);
            let is_valid = source.is_some() || is_to_group && options.source_mac.is_none();
            is_valid.then_some(Message::Solicitation { source, target })
        }
        ADVERTISEMENT => {
            let is_valid = !(destination.is_multicast() && flags & SOLICITED != 0);
            is_valid.then_some(Message::Advertisement { target, mac: options.target_mac })
        }
        _ => None,
    }
}

#[derive(Debug, Default)]
struct Options {
    source_mac: Option<MacAddr>,
    target_mac: Option<MacAddr>,
}

/// `None` if they are malformed: then the whole message is ignored.
fn read_options(mut bytes: &[u8]) -> Option<Options> {
    let mut options = Options::default();
    while let [kind, units, ..] = bytes {
        let length = usize::from(*units) * 8;
        let (option, rest) = bytes.split_at_checked(length).filter(|_| length > 0)?;
        let mac = || option[2..].first_chunk().copied().map(MacAddr);
        match *kind {
            SOURCE_MAC => options.source_mac = mac(),
            TARGET_MAC => options.target_mac = mac(),
            _ => {}
        }
        bytes = rest;
    }
    bytes.is_empty().then_some(options)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    /// A packet whose checksum is right again.
    fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[42..44].copy_from_slice(&[0, 0]);
        let address = |at: usize| Ipv6Addr::from(*bytes[at..].first_chunk::<16>().unwrap());
        let sum = checksum(address(8), address(24), &bytes[40..]);
        bytes[42..44].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn solicitations_go_to_the_group_of_their_target() {
        let probe = solicitation(MAC, None, ip("fd66::a:17"));
        assert_eq!(probe.len(), 64);
        assert_eq!(parse(&probe), Some(Message::Solicitation { source: None, target: ip("fd66::a:17") }));
        assert_eq!(solicited_node(ip("fd66::12a:bc17")), ip("ff02::1:ff2a:bc17"));
        assert_eq!(group_mac(ip("ff02::1:ff2a:bc17")).to_string(), "33:33:ff:2a:bc:17");
        let asked = solicitation(MAC, Some(ip("fd66::9")), ip("fd66::1"));
        assert_eq!(asked[64..], [1, 1, 2, 0, 0, 0, 0, 1]);
        let source = Some(ip("fd66::9"));
        assert_eq!(parse(&asked), Some(Message::Solicitation { source, target: ip("fd66::1") }));
    }

    #[test]
    fn an_advertisement_names_the_mac_of_its_target() {
        let advertisement = unsolicited_advertisement(MAC, ip("fd66::9"));
        let expect = Message::Advertisement { target: ip("fd66::9"), mac: Some(MAC) };
        assert_eq!(parse(&advertisement), Some(expect));
        let mut padded = advertisement;
        padded.extend([0xff; 9]);
        assert_eq!(parse(&padded), Some(expect));
    }

    /// RFC 4861, sections 7.1.1 and 7.1.2.
    #[test]
    fn what_is_invalid_is_ignored() {
        let valid = unsolicited_advertisement(MAC, ip("fd66::9"));
        for (at, value, what) in [
            (7, 64, "hop limit"),
            (41, 1, "code"),
            (44, 0x60, "solicited, to a group"),
            (48, 0xff, "target is a group"),
            (65, 0, "option without a length"),
            (65, 2, "option beyond the end"),
        ] {
            let mut bytes = valid.clone();
            bytes[at] = value;
            assert_eq!(parse(&summed(bytes)), None, "{what}");
        }
        let mut wrong = valid.clone();
        wrong[50] ^= 1;
        assert_eq!(parse(&wrong), None, "checksum");
        assert_eq!(parse(&valid[..60]), None, "cut off");
        let mut with_source = solicitation(MAC, Some(ip("fd66::9")), ip("fd66::1"));
        with_source[8..24].fill(0);
        assert_eq!(parse(&summed(with_source)), None, "a source's MAC without a source");
    }

    proptest! {
        #[test]
        fn never_panics_on_arbitrary_input(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn never_panics_on_arbitrary_options(options in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut message = vec![ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0];
            message.extend(ip("fd66::9").octets());
            message.extend(options);
            let _ = parse(&packet(ip("fd66::9"), ALL_NODES, message));
        }
    }
}
