//! A subnet, parsed: what the spec of a SpiderSubnet means once its texts are addresses.

use std::ops::Deref;

use thiserror::Error;

use crate::error_list::ErrorList;
use crate::ip::{IpRange, IpSet};
use crate::ipam::pool::{Pool, PoolError, PoolFields, SpecialAddress};

/// The spec of a subnet, which is valid. It has the fields of a pool that say addresses, gateway and routes, and their rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet(Pool);

/// Why a subnet cannot be used: everything that is wrong with its spec.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("SpiderSubnet {} is invalid: {}", .0.pool, ErrorList(&.0.faults))]
pub struct SubnetError(pub PoolError);

impl Subnet {
    /// Parses a subnet, of whose fields those of pools alone are not set; fails with everything that is wrong with it.
    pub fn parse(fields: &PoolFields<'_>) -> Result<Self, SubnetError> {
        Pool::parse(fields).map(Self).map_err(SubnetError)
    }

    /// What applications' pools are cut from. The network's own address is a pod's only where somebody has named it: it becomes
    /// part of no range.
    pub fn carvable(&self) -> IpSet {
        let special = SpecialAddress::of_subnet(&self.subnet);
        let special = special.into_iter().map(|special| IpRange::single(special.address));
        self.usable.difference(&IpSet::from_ranges(self.family(), special))
    }
}

impl Deref for Subnet {
    type Target = Pool;

    fn deref(&self) -> &Pool {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_the_rules_of_a_pool_and_its_own_name_in_errors() {
        let ips = ["10.6.0.0".to_owned(), "10.6.0.1-10.6.0.9".to_owned()];
        let fields = PoolFields { name: "s1", subnet: "10.6.0.0/24", ips: &ips, ..PoolFields::default() };
        let subnet = Subnet::parse(&fields).unwrap();
        assert_eq!((subnet.usable.len(), subnet.carvable().len()), (10, 9));
        let error = Subnet::parse(&PoolFields { subnet: "10.6.0.9/24", ..fields }).unwrap_err().to_string();
        assert!(error.starts_with("SpiderSubnet s1 is invalid: spec.subnet: unformatted subnet"), "{error}");
    }
}
