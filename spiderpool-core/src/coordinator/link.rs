//! Names and MACs that are made up: of the node link, and from `podMACPrefix`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::SettingsError;
use crate::mac::MacAddr;
use crate::names::IfName;

/// Name of the node link in the pod. Not `veth0`, by which an underlay pod is known.
pub const NODE_LINK: &str = "sp0";

/// Name of the node link in the pod in underlay mode, as upstream calls it: by it an underlay pod is known.
pub const VETH0: &str = "veth0";

/// Address of the node link in the pod: rp_filter 2 treats a NIC without an address as 1 does.
pub const NODE_LINK_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 77, 2), 32));

/// Name of the node link's host end: `sp` and 52 bits of the container ID's hash, 15 characters. It names one
/// sandbox for ever, so a late DEL of an old sandbox never meets a new one's.
pub fn host_end_name(container_id: &str) -> Result<IfName, crate::names::NameError> {
    format!("sp{:013x}", hash(container_id) >> 12).parse()
}

/// Name of veth0's host end: as upstream's, whose eleven last characters are the container ID's first ones; here they are
/// of its hash, so that it names one sandbox for ever whatever IDs look like.
pub(super) fn veth0_host_name(container_id: &str) -> Result<IfName, crate::names::NameError> {
    format!("veth{:011x}", hash(container_id) >> 20).parse()
}

/// Whether a device is called as the host ends of node links are: `sp` and 13 digits, or veth0's `veth` and 11.
pub fn is_host_end_name(name: &IfName) -> bool {
    digits_of_host_end(name).is_some()
}

/// Whether a device with this name and MAC is the host end of a node link: they are made up together. By its name alone
/// veth0's might be another plugin's.
pub fn is_host_end_with(name: &IfName, mac: MacAddr) -> bool {
    let Some(digits) = digits_of_host_end(name) else { return false };
    // The first digits of the hash: all but its first byte are in the MAC.
    let [first, a, b, c, d, last] = mac.0;
    let written = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
    first == 0x0a && last & 1 == 0 && digits.get(2..10) == Some(written.as_str())
}

fn digits_of_host_end(name: &IfName) -> Option<&str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    [("sp", 13), ("veth", 11)].into_iter().find_map(|(prefix, count)| {
        let digits = name.as_str().strip_prefix(prefix)?;
        (digits.len() == count && digits.bytes().all(is_digit)).then_some(digits)
    })
}

/// MACs of the node link's ends, host's first: locally administered, made from the container ID.
pub fn node_link_macs(container_id: &str) -> (MacAddr, MacAddr) {
    let bytes = hash(container_id).to_be_bytes();
    let mac = |last| MacAddr([0x0a, bytes[1], bytes[2], bytes[3], bytes[4], (bytes[5] & 0xfe) | last]);
    (mac(0), mac(1))
}

/// The IPv6 link-local address that belongs to a MAC (RFC 4291 appendix A).
pub fn link_local(mac: MacAddr) -> IpNet {
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
    octets[8..11].copy_from_slice(&mac.0[..3]);
    octets[13..].copy_from_slice(&mac.0[3..]);
    octets[8] ^= 2;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
}

/// FNV-1a: stable over releases, which the standard library's hasher is not.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// `podMACPrefix`: the first two bytes of a NIC's MAC, the address is the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacPrefix([u8; 2]);

impl MacPrefix {
    /// The MAC for an address: all of an IPv4 address, the last four bytes of an IPv6 address.
    pub fn mac(self, addr: IpAddr) -> MacAddr {
        let [a, b, c, d] = match addr {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => v6.to_bits().to_be_bytes()[12..].try_into().unwrap_or_default(),
        };
        MacAddr([self.0[0], self.0[1], a, b, c, d])
    }
}

impl FromStr for MacPrefix {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let error = || SettingsError::MacPrefix(text.to_owned());
        // Upstream's documents also write it with a dash.
        let (first, second) = text.split_once([':', '-']).ok_or_else(error)?;
        let byte = |part: &str| {
            let valid = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            valid.then(|| u8::from_str_radix(part, 16).ok()).flatten().ok_or_else(error)
        };
        let prefix = [byte(first)?, byte(second)?];
        if prefix[0] & 1 == 1 { Err(error()) } else { Ok(Self(prefix)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_holds_the_address() {
        let prefix: MacPrefix = "0a:1b".parse().unwrap();
        assert_eq!(prefix.mac("10.6.212.145".parse().unwrap()).to_string(), "0a:1b:0a:06:d4:91");
        assert_eq!(prefix.mac("fd00:10:6::2e5".parse().unwrap()).to_string(), "0a:1b:00:00:02:e5");
    }

    /// Upstream drops leading zeros before it writes the bytes in hex.
    #[test]
    fn mac_of_an_ipv6_address_whose_leading_bytes_are_zero() {
        let prefix: MacPrefix = "0a:1b".parse().unwrap();
        assert_eq!(prefix.mac("64:ff9b::1.2.3.4".parse().unwrap()).to_string(), "0a:1b:01:02:03:04");
    }

    #[test]
    fn prefixes_of_unicast_addresses_only() {
        for good in ["0a:1b", "0A:FF", "00:00", "fe:01", "0e-1b"] {
            assert!(good.parse::<MacPrefix>().is_ok(), "{good}");
        }
        for bad in ["", "0a", "0a:1", "0a:1b:2c", "01:00", "03:00", "0f:00", "0,:00", "0g:00", "+a:00"] {
            assert!(bad.parse::<MacPrefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_end_is_named_by_the_container() {
        let one = host_end_name("c0ffee").unwrap();
        assert_eq!(one.as_str().len(), 15);
        assert!(one.as_str().starts_with("sp"));
        assert_eq!(one, host_end_name("c0ffee").unwrap());
        assert!(is_host_end_name(&one));
        for other in ["sp0", "spx", "eth0", "spider0", "sp012345678901g"] {
            assert!(!is_host_end_name(&other.parse().unwrap()), "{other}");
        }
        assert_ne!(one, host_end_name("c0ffef").unwrap());
    }

    #[test]
    fn name_and_mac_of_a_host_end_belong_together() {
        let (mac, pod_mac) = node_link_macs("c0ffee");
        for name in [host_end_name("c0ffee"), veth0_host_name("c0ffee")] {
            let name = name.unwrap();
            assert!(is_host_end_name(&name) && is_host_end_with(&name, mac), "{name}");
            assert!(
                !is_host_end_with(&name, pod_mac) && !is_host_end_with(&name, node_link_macs("c0ffef").0)
            );
        }
        // Another plugin's, with any MAC.
        assert!(!is_host_end_with(&"veth1a2b3c4d".parse().unwrap(), mac));
    }

    #[test]
    fn the_two_ends_have_different_unicast_macs() {
        for id in ["", "a", "c0ffee"] {
            let (host, pod) = node_link_macs(id);
            assert_ne!(host, pod);
            assert!(host.0[0] & 3 == 2 && pod.0[0] & 3 == 2);
        }
        assert_eq!(link_local(MacAddr([0x0a, 0, 0, 0, 0, 1])).to_string(), "fe80::800:ff:fe00:1/64");
    }
}
