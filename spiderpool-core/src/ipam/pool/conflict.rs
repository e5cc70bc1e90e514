//! Addresses of a pool that belong to somebody else.

use ipnet::IpNet;
use thiserror::Error;

use super::Pool;
use crate::error_list::examples;
use crate::ip::{IpRange, IpSet};
use crate::names::PoolName;

/// Why no pod gets an address from a valid pool: some of its addresses are somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolConflict {
    /// The pool's status has allocations of upstream's agents: which pods have them no SpiderIPAddress says.
    #[error(
        "IPPool {pool} has addresses in use in status.allocatedIPs that are not imported as SpiderIPAddresses"
    )]
    NotImported {
        /// The pool.
        pool: PoolName,
    },
    /// An older pool has them. That one goes on: what is new must not stop what has worked.
    #[error("IPPool {pool} overlaps the older IPPool {older} in {}", examples(.ranges))]
    OlderPool {
        /// The pool.
        pool: PoolName,
        /// The other one.
        older: PoolName,
        /// What both hold.
        ranges: Vec<IpRange>,
    },
    /// They are addresses of Services: what is sent to them does not leave by the pod's NIC.
    #[error("IPPool {pool} overlaps the Service CIDR {cidr} in {}", examples(.ranges))]
    ServiceCidr {
        /// The pool.
        pool: PoolName,
        /// The CIDR.
        cidr: IpNet,
        /// What both hold.
        ranges: Vec<IpRange>,
    },
}

impl PoolConflict {
    /// What to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotImported { .. } => {
                "the controller imports them when agents of upstream's Spiderpool cannot allocate any more; what keeps it \
                 from that, an Event of the pool says"
            }
            Self::OlderPool { .. } | Self::ServiceCidr { .. } => "change its spec.ips or spec.excludeIPs",
        }
    }

    /// The first of these Service CIDRs that holds a usable address of the pool.
    pub fn with_service_cidrs(pool: &Pool, cidrs: &[IpNet]) -> Option<Self> {
        let (cidr, ranges) = first_overlap(pool, cidrs)?;
        Some(Self::ServiceCidr { pool: pool.name.clone(), cidr, ranges })
    }
}

/// Usable addresses that overlay pods have as well. That is right for the NIC of the main CNI plugin, and wrong for an
/// underlay NIC.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the pool overlaps the pod CIDR {cidr} in {}: use it for the main CNI plugin's NIC only, Pods get no underlay NIC \
     with these addresses",
    examples(.ranges)
)]
pub struct PodCidrOverlap {
    /// The CIDR.
    pub cidr: IpNet,
    /// What both hold.
    pub ranges: Vec<IpRange>,
}

impl PodCidrOverlap {
    /// The first of these pod CIDRs that holds a usable address of the pool.
    pub fn find(pool: &Pool, cidrs: &[IpNet]) -> Option<Self> {
        first_overlap(pool, cidrs).map(|(cidr, ranges)| Self { cidr, ranges })
    }
}

fn first_overlap(pool: &Pool, cidrs: &[IpNet]) -> Option<(IpNet, Vec<IpRange>)> {
    cidrs.iter().find_map(|cidr| {
        let cidr_set = IpSet::from_ranges(pool.family(), [IpRange::of_net(*cidr)]);
        let ranges: Vec<_> = pool.usable.intersection(&cidr_set).ranges().collect();
        (!ranges.is_empty()).then_some((*cidr, ranges))
    })
}

/// The addresses that both pools hold.
pub fn shared_addresses(one: &Pool, other: &Pool) -> Vec<IpRange> {
    let subnets_meet =
        one.subnet.contains(&other.subnet.network()) || other.subnet.contains(&one.subnet.network());
    if subnets_meet { one.usable.intersection(&other.usable).ranges().collect() } else { Vec::new() }
}
