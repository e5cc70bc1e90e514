//! Who has which address in the topology.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::dual::Dual;

/// The API server, on the management network.
pub const API_SERVER: Dual = management(1);
/// The router's leg in the management network: the nodes' default gateway.
pub const MANAGEMENT_GATEWAY: Dual = management(254);
/// The underlay's gateway.
pub const UNDERLAY_GATEWAY: Dual = underlay(0, 1);
/// The router's leg towards the outside.
pub const FAR_GATEWAY: Dual = far(1);
/// A client behind the router.
pub const OUTSIDE: Dual = far(2);

/// Another address of [`OUTSIDE`]'s, in a network of its own.
pub const HIJACKED: Dual = Dual::new(Ipv4Addr::new(10, 78, 0, 2), Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 2));

/// A client in the underlay.
pub const CLIENT: Dual = underlay(0, 250);

/// CIDRs of all overlay pods.
pub const OVERLAY: [&str; 2] = ["10.244.0.0/16", "fd44::/48"];
/// The underlay's subnets.
pub const UNDERLAY: [&str; 2] = ["10.66.0.0/16", "fd66::/64"];
/// CIDRs of ClusterIPs.
pub const SERVICES: [&str; 2] = ["10.96.0.0/16", "fd96::/112"];

const fn management(host: u8) -> Dual {
    Dual::new(Ipv4Addr::new(172, 30, 0, host), Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, host as u16))
}

const fn far(host: u8) -> Dual {
    Dual::new(Ipv4Addr::new(10, 77, 0, host), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host as u16))
}

const fn underlay(block: u8, host: u8) -> Dual {
    let v6 = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, block as u16, host as u16);
    Dual::new(Ipv4Addr::new(10, 66, block, host), v6)
}

/// A node's address in the management network: its node IP.
pub const fn node(index: u8) -> Dual {
    management(10 + index)
}

/// A node's own address in the underlay, on the NIC that is the parent of its pods' macvlan NICs.
pub const fn node_underlay(index: u8) -> Dual {
    underlay(1, 10 + index)
}

/// An address in one of a cluster's underlays, counted from 1: 10.66.0.0/16 and fd66::/64, 10.67.0.0/16 and fd67::/64.
pub fn further_underlay(number: u8, block: u8, host: u8) -> Dual {
    let net = 65 + number;
    // The prefix reads like the IPv4 one: fd67 for 67.
    let prefix = 0xfd00 + u16::from(net / 10) * 16 + u16::from(net % 10);
    let v6 = Ipv6Addr::new(prefix, 0, 0, 0, 0, 0, block.into(), host.into());
    Dual::new(Ipv4Addr::new(10, net, block, host), v6)
}

/// A client in one of the underlays.
pub fn client(underlay: u8) -> Dual {
    further_underlay(underlay, 0, 250)
}

/// What a load balancer gives Services: an address in the first underlay, and one that is routed to their node.
pub fn load_balancer(number: u16) -> [Dual; 2] {
    let [high, low] = number.to_be_bytes();
    let announced = Ipv6Addr::new(0xfd66, 0, 0, 0, 0, 0, 0xc8, number);
    [
        Dual::new(Ipv4Addr::new(10, 66, 200 + high, low), announced),
        Dual::new(Ipv4Addr::new(10, 88, high, low), Ipv6Addr::new(0xfd88, 0, 0, 0, 0, 0, 0, number)),
    ]
}

/// The name of one of the underlays' switches.
pub fn underlay_name(number: u8) -> String {
    if number == 1 { "underlay".into() } else { format!("underlay{number}") }
}

/// The subnets of one of the underlays.
pub fn underlay_subnets(number: u8) -> [String; 2] {
    let net = further_underlay(number, 0, 0);
    [format!("{}/16", net.v4), format!("{}/64", net.v6)]
}

/// A node's address among its overlay pods, where the default network gives it one: the first, which host-local keeps.
pub const fn node_router(index: u8) -> Dual {
    let v6 = Ipv6Addr::new(0xfd44, 0, 0, index as u16, 0, 0, 0, 1);
    Dual::new(Ipv4Addr::new(10, 244, index, 1), v6)
}

/// The subnets of a node's overlay pods.
pub fn pod_cidrs(index: u8) -> [String; 2] {
    [format!("10.244.{index}.0/24"), format!("fd44:0:0:{index}::/64")]
}

/// A MAC address that is the same in every run, so that nothing depends on chance.
pub fn mac(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let bytes = hasher.finish().to_be_bytes();
    bytes[..5].iter().fold("02".to_owned(), |mac, byte| format!("{mac}:{byte:02x}"))
}
