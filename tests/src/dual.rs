//! A pair of addresses, one per family, so that everything in the bench exists twice without being written twice.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use spiderpool_core::ip::Family;

/// An IPv4 and an IPv6 address of the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dual {
    /// The IPv4 address.
    pub v4: Ipv4Addr,
    /// The IPv6 address.
    pub v6: Ipv6Addr,
}

impl Dual {
    /// From both addresses.
    pub const fn new(v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self { v4, v6 }
    }

    /// The address of one family.
    pub fn get(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// From a list with one address of each family, in any order.
    pub fn from_addresses(addresses: &[IpAddr]) -> Option<Self> {
        let (mut v4, mut v6) = (None, None);
        for address in addresses {
            match address {
                IpAddr::V4(address) => v4 = Some(*address),
                IpAddr::V6(address) => v6 = Some(*address),
            }
        }
        Some(Self { v4: v4?, v6: v6? })
    }
}

impl fmt::Display for Dual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.v4, self.v6)
    }
}
