//! Underlay addresses that are in a pod CIDR: what the pod sends to overlay pods would stay in the underlay, or what
//! comes back by the overlay would never arrive. For the NIC of the main CNI plugin such addresses are right.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::PlanError;
use crate::names::{IfName, PoolName};

/// Fails if an address of the underlay NIC is in one of the pod CIDRs. `pools` are those of the pod's addresses.
pub fn check_pod_cidrs(
    nic: &IfName,
    addresses: &[IpNet],
    pod_cidrs: &[IpNet],
    pools: &BTreeMap<IpAddr, PoolName>,
) -> Result<(), PlanError> {
    let in_cidr = addresses.iter().find_map(|address| {
        let cidr = pod_cidrs.iter().find(|cidr| cidr.contains(&address.addr()))?;
        Some((address.addr(), *cidr))
    });
    let Some((address, cidr)) = in_cidr else { return Ok(()) };
    let pool = pools.get(&address).cloned();
    Err(PlanError::InPodCidr { nic: nic.clone(), address, cidr, pool })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_underlay_address_in_a_pod_cidr_is_refused_with_its_pool() {
        let nic = "net1".parse().unwrap();
        let cidrs = ["10.244.0.0/16", "fd00:244::/56"].map(|cidr| cidr.parse().unwrap());
        let pools = BTreeMap::from([("10.244.7.9".parse().unwrap(), "blue".parse().unwrap())]);
        let check = |address: &str| {
            let checked = check_pod_cidrs(&nic, &[address.parse().unwrap()], &cidrs, &pools);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check("10.6.7.9/16"), Ok(()));
        // The subnet holds the pod CIDR, which is more specific: it is steered all the same.
        assert_eq!(check("10.6.7.9/8"), Ok(()));
        let refused = check("10.244.7.9/24").unwrap_err();
        assert!(
            refused.starts_with("IPPool blue overlaps the pod CIDR 10.244.0.0/16: net1 got 10.244.7.9"),
            "{refused}"
        );
        let refused = check("fd00:244::9/64").unwrap_err();
        assert!(refused.starts_with("the IPAM of net1 overlaps the pod CIDR fd00:244::/56: "), "{refused}");
    }
}
