//! Pools that share addresses.

use thiserror::Error;

use super::Pool;
use crate::ip::IpRange;
use crate::names::PoolName;

/// Two pools that both hold an address. An address must belong to one pool: its object is named by it alone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("IPPools {first} and {second} overlap in {}", join(.ranges))]
pub struct Overlap {
    /// One pool.
    pub first: PoolName,
    /// The other.
    pub second: PoolName,
    /// What both hold.
    pub ranges: Vec<IpRange>,
}

fn join(ranges: &[IpRange]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The addresses that both pools hold.
pub fn shared_addresses(one: &Pool, other: &Pool) -> Vec<IpRange> {
    let subnets_meet =
        one.subnet.contains(&other.subnet.network()) || other.subnet.contains(&one.subnet.network());
    if subnets_meet { one.usable.intersection(&other.usable).ranges().collect() } else { Vec::new() }
}
