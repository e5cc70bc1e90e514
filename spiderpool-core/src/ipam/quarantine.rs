//! Addresses that somebody else was seen using on the wire: whether a pod that was given one gets another one in its place.
//!
//! Whoever is on the link may claim addresses that are free. So what can be claimed away from a pool is limited, and an
//! address that a pod is to have and no other one is not exchanged.

use std::net::IpAddr;
use std::time::SystemTime;

use thiserror::Error;

use crate::mac::MacAddr;
use crate::names::{IfName, PoolName};

/// One in so many addresses of a pool may be quarantined.
const SHARE: u128 = 4;
/// Of a small pool as many as these, but no more than half of it.
const FEW: u128 = 8;

/// Who was seen using an address on the wire, and until when nobody gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Who answered for it.
    pub by: MacAddr,
    /// When it may be used again, by the clock of who writes it.
    pub until: SystemTime,
}

/// An address that a pod was given and that somebody else uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// Who answers for it.
    pub by: MacAddr,
    /// The pod's NIC.
    pub nic: IfName,
    /// Its pool.
    pub pool: PoolName,
}

/// Whether the pod may have another address as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Any address of the pools.
    Any,
    /// The one that its runtime asks for.
    Requested,
    /// The one that the pod of its name had before.
    Kept,
}

/// Why the address is not exchanged. The pod keeps it, and each attempt probes again: it starts when nobody else uses the
/// address any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConflictError {
    /// It is asked for.
    #[error(
        "the requested IP address {} of NIC {} is in use on its network by {}: stop that machine from using it, or request \
         another one",
        .0.address, .0.nic, .0.by
    )]
    Requested(Conflict),
    /// It is the pod's for good.
    #[error(
        "IP address {} of NIC {}, which stays with the Pods of this name, is in use on its network by {}: stop that machine from \
         using it, or give the address up (scale the workload down, or delete the SpiderIPAddress while no Pod has it)",
        .0.address, .0.nic, .0.by
    )]
    Kept(Conflict),
    /// Too many of its pool are quarantined.
    #[error(
        "IP address {} of NIC {} is in use on its network by {}, and {quarantined} addresses of IPPool {} are quarantined \
         already, so it is not exchanged: see who answers for all of them (kubectl get sip -l \
         ipam.spidernet.io/quarantined=true -o yaml), and delete those SpiderIPAddresses when that has stopped",
        .conflict.address, .conflict.nic, .conflict.by, .conflict.pool
    )]
    TooMany {
        /// What was found.
        conflict: Conflict,
        /// How many there are.
        quarantined: u128,
    },
}

/// Whether the address may be quarantined and another one given. Of the pool's addresses `usable` may be given and
/// `quarantined` are so now.
pub fn plan_exchange(
    conflict: Conflict,
    claim: Claim,
    usable: u128,
    quarantined: u128,
) -> Result<(), ConflictError> {
    match claim {
        Claim::Requested => Err(ConflictError::Requested(conflict)),
        Claim::Kept => Err(ConflictError::Kept(conflict)),
        Claim::Any if quarantined >= limit(usable) => Err(ConflictError::TooMany { conflict, quarantined }),
        Claim::Any => Ok(()),
    }
}

/// How many of so many addresses may be quarantined: at least one, so that a pod with a pool of its own is told who answers.
fn limit(usable: u128) -> u128 {
    (usable / 2).clamp(1, FEW).max(usable / SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(claim: Claim, usable: u128, quarantined: u128) -> Result<(), String> {
        let conflict = Conflict {
            address: "10.6.0.9".parse().unwrap(),
            by: "02:00:00:00:00:07".parse().unwrap(),
            nic: "net1".parse().unwrap(),
            pool: "p".parse().unwrap(),
        };
        plan_exchange(conflict, claim, usable, quarantined).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_that_a_pod_is_to_have_and_no_other_is_not_exchanged() {
        for claim in [Claim::Requested, Claim::Kept] {
            let error = planned(claim, 1000, 0).unwrap_err();
            for part in ["10.6.0.9", "net1", "02:00:00:00:00:07", "stop that machine"] {
                assert!(error.contains(part), "{error}");
            }
        }
        assert_eq!(planned(Claim::Any, 1000, 0), Ok(()));
    }

    /// One machine that answers every probe.
    #[test]
    fn a_pool_loses_at_most_a_quarter_of_its_addresses_and_a_small_one_half() {
        for (usable, limit) in
            [(1000, 250), (40, 10), (16, 8), (10, 5), (2, 1), (1, 1), (u128::MAX, u128::MAX / 4)]
        {
            assert_eq!(planned(Claim::Any, usable, limit - 1), Ok(()), "{usable}");
            let error = planned(Claim::Any, usable, limit).unwrap_err();
            assert!(error.contains(&format!("{limit} addresses of IPPool p are quarantined")), "{error}");
        }
    }
}
