//! Addresses that the runtime asks for: `runtimeConfig.ips`, `args.cni.ips` and `IP=` in `CNI_ARGS`. A NIC gets the one
//! that is asked for, or none.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::candidates::PoolCandidates;
use super::error::IpamError;
use super::pool::Pool;
use crate::ip::{Family, IpRange, IpSet};
use crate::names::IfName;

/// An address, with or without a prefix length. The pool decides which it has.
pub fn parse_requested(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()))
}

/// The addresses that are asked for the NIC that is being added, at most one of each family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestedAddresses(Vec<IpAddr>);

impl RequestedAddresses {
    /// The same address may be asked for in several ways.
    pub fn new(nic: &IfName, addresses: &[IpAddr]) -> Result<Self, IpamError> {
        let mut wanted: Vec<IpAddr> = Vec::new();
        for address in addresses {
            if wanted.contains(address) {
                continue;
            }
            if let Some(other) = wanted.iter().find(|other| Family::of(**other) == Family::of(*address)) {
                let cause = format!("{other} is asked for too, and a NIC has one address of a family");
                return Err(IpamError::Requested { address: *address, nic: nic.clone(), cause });
            }
            wanted.push(*address);
        }
        Ok(Self(wanted))
    }

    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        self.0.iter().copied().find(|address| Family::of(*address) == family)
    }

    /// Whether each has pools that it may come from: an address that no candidate speaks of would be forgotten.
    pub fn check_families(&self, nic: &IfName, candidates: &[PoolCandidates]) -> Result<(), IpamError> {
        let is_served =
            |address: &IpAddr| candidates.iter().any(|c| c.nic == *nic && c.family == Family::of(*address));
        match self.0.iter().find(|address| !is_served(address)) {
            None => Ok(()),
            Some(address) => {
                let cause = format!("no {} IPPool is named for the NIC", Family::of(*address));
                Err(IpamError::Requested { address: *address, nic: nic.clone(), cause })
            }
        }
    }

    /// Of the pools that may serve a family of the NIC, those that have the address, with nothing beside it.
    pub fn narrow(
        &self,
        candidate: &PoolCandidates,
        pools: Vec<Arc<Pool>>,
    ) -> Result<Vec<Arc<Pool>>, IpamError> {
        let Some(address) = self.of(candidate.family) else { return Ok(pools) };
        let having = pools.iter().filter(|pool| pool.usable.contains(address));
        let alone = IpSet::from_ranges(candidate.family, [IpRange::single(address)]);
        let narrowed: Vec<_> =
            having.map(|pool| Arc::new(Pool { usable: alone.clone(), ..Pool::clone(pool) })).collect();
        if narrowed.is_empty() {
            let names: Vec<_> = pools.iter().map(|pool| pool.name.as_str()).collect();
            let cause = format!("it is in none of the IPPools [{}]", names.join(" "));
            return Err(IpamError::Requested { address, nic: candidate.nic.clone(), cause });
        }
        Ok(narrowed)
    }

    /// Whether the NIC has got what was asked for. It may hold another one from before.
    pub fn check_given(&self, candidate: &PoolCandidates, given: IpAddr) -> Result<(), IpamError> {
        match self.of(candidate.family) {
            Some(address) if address != given => {
                let cause = format!("the Pod holds {given} on this NIC already: create the Pod again");
                Err(IpamError::Requested { address, nic: candidate.nic.clone(), cause })
            }
            _ => Ok(()),
        }
    }

    /// Says what a narrowed pool that is used out means.
    pub fn explain(&self, error: IpamError) -> IpamError {
        match &error {
            IpamError::AllFailed { family, nic, .. } if error.is_used_out() => match self.of(*family) {
                Some(address) => {
                    let cause = "it is in use or reserved".to_owned();
                    IpamError::Requested { address, nic: nic.clone(), cause }
                }
                None => error,
            },
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::DefaultRoute;
    use crate::ipam::error::PoolFailure;
    use crate::ipam::pool::PoolFields;

    fn pool(name: &str, ips: &str) -> Arc<Pool> {
        let ips = [ips.to_owned()];
        let fields = PoolFields { name, subnet: "10.6.0.0/16", ips: &ips, ..PoolFields::default() };
        Arc::new(Pool::parse(&fields).unwrap())
    }

    fn nic() -> IfName {
        "net1".parse().unwrap()
    }

    fn candidate() -> PoolCandidates {
        PoolCandidates {
            named_by: crate::ipam::PoolSource::ClusterDefault,
            nic: nic(),
            family: Family::V4,
            pools: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            wildcards: Vec::new(),
            default_route: DefaultRoute::Keep,
        }
    }

    fn requested(addresses: &[&str]) -> Result<RequestedAddresses, IpamError> {
        let addresses: Vec<_> = addresses.iter().map(|text| parse_requested(text).unwrap()).collect();
        RequestedAddresses::new(&nic(), &addresses)
    }

    #[test]
    fn an_address_is_asked_for_with_or_without_prefix() {
        assert_eq!(parse_requested(" 10.6.0.7/16"), "10.6.0.7".parse().ok());
        assert_eq!(parse_requested("fd00::7"), "fd00::7".parse().ok());
        assert_eq!(parse_requested("net"), None);
        let both = requested(&["10.6.0.7/16", "10.6.0.7", "fd00::7"]).unwrap();
        assert_eq!(both.of(Family::V6), "fd00::7".parse().ok());
        let error = requested(&["10.6.0.7", "10.6.0.8"]).unwrap_err().to_string();
        assert!(error.contains("10.6.0.8") && error.contains("10.6.0.7 is asked for too"), "{error}");
    }

    #[test]
    fn only_the_pool_that_has_the_requested_address_is_tried_and_only_for_it() {
        let pools = vec![pool("a", "10.6.0.1-10.6.0.5"), pool("b", "10.6.0.6-10.6.0.9")];
        let narrowed = requested(&["10.6.0.7"]).unwrap().narrow(&candidate(), pools.clone()).unwrap();
        assert_eq!((narrowed.len(), narrowed[0].name.as_str(), narrowed[0].usable.len()), (1, "b", 1));
        let error = requested(&["10.6.0.77"]).unwrap().narrow(&candidate(), pools.clone()).unwrap_err();
        assert!(error.to_string().contains("in none of the IPPools [a b]"), "{error}");
        let unasked = RequestedAddresses::default().narrow(&candidate(), pools.clone()).unwrap();
        assert_eq!(unasked, pools);
    }

    #[test]
    fn a_requested_address_that_cannot_be_given_is_never_forgotten() {
        let v6 = requested(&["fd00::7"]).unwrap();
        let error = v6.check_families(&nic(), &[candidate()]).unwrap_err().to_string();
        assert!(error.contains("no IPv6 IPPool is named"), "{error}");
        let v4 = requested(&["10.6.0.7"]).unwrap();
        v4.check_families(&nic(), &[candidate()]).unwrap();
        v4.check_given(&candidate(), "10.6.0.7".parse().unwrap()).unwrap();
        let error = v4.check_given(&candidate(), "10.6.0.8".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("holds 10.6.0.8"), "{error}");
        let used_out = |failure| IpamError::AllFailed {
            family: Family::V4,
            nic: nic(),
            pools: vec![],
            failures: vec![failure],
        };
        let exhausted =
            PoolFailure::Exhausted { pool: "b".parse().unwrap(), usable: 1, reserved: 0, quarantined: 0 };
        let error = v4.explain(used_out(exhausted)).to_string();
        assert!(error.contains("10.6.0.7") && error.contains("in use or reserved"), "{error}");
        let refused = used_out(PoolFailure::Refused { pool: "b".parse().unwrap(), cause: "no".into() });
        assert_eq!(v4.explain(refused.clone()), refused);
    }
}
