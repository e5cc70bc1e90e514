//! Addresses of a subnet that are no host's: a pod with one of them has no connections.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::ip::{Family, IpRange, IpSet};

/// An address that means something else than a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialAddress {
    /// The address.
    pub address: IpAddr,
    /// What it means.
    pub role: AddressRole,
}

/// What an address means if it is not a host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRole {
    /// The lowest one of an IPv4 subnet: an old form of its broadcast address.
    Network,
    /// The highest one of an IPv4 subnet.
    Broadcast,
    /// The lowest one of an IPv6 subnet: every router of the subnet answers for it (RFC 4291, 2.6.1).
    SubnetRouterAnycast,
}

impl AddressRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Broadcast => "broadcast",
            Self::SubnetRouterAnycast => "subnet-router anycast",
        }
    }
}

impl fmt::Display for SpecialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is the {} address of spec.subnet", self.address, self.role.as_str())
    }
}

impl SpecialAddress {
    /// Those of a subnet. On a link of two hosts both addresses are theirs (RFC 3021: /31, RFC 6164: /127), and a
    /// subnet of one address is a host.
    pub fn of_subnet(subnet: &IpNet) -> Vec<Self> {
        let family = Family::of_net(subnet);
        if subnet.prefix_len() + 1 >= family.bits() {
            return Vec::new();
        }
        let (lowest, highest) = (subnet.network(), subnet.broadcast());
        match family {
            Family::V4 => vec![
                Self { address: lowest, role: AddressRole::Network },
                Self { address: highest, role: AddressRole::Broadcast },
            ],
            Family::V6 => vec![Self { address: lowest, role: AddressRole::SubnetRouterAnycast }],
        }
    }
}

/// The addresses of a subnet that its ranges alone do not make usable: who wants one has to name it by itself.
pub(super) fn unusable(subnet: &IpNet, ips: &[IpRange]) -> IpSet {
    let is_named = |address: IpAddr| ips.contains(&IpRange::single(address));
    let special = SpecialAddress::of_subnet(subnet).into_iter().map(|special| special.address);
    let unnamed = special.filter(|address| !is_named(*address)).map(IpRange::single);
    IpSet::from_ranges(Family::of_net(subnet), unnamed)
}
