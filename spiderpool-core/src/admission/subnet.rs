//! SpiderSubnets: what is refused beside the rules that they share with pools, and what they ask of the pools that have
//! addresses of them.

mod member;

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::pool::{address_fields, usable};
use super::ranges;
use crate::field_error::FieldError;
use crate::ip::IpSet;
use crate::ipam::pool::{Pool, PoolConflict, PoolFields};
use crate::subnet::{ControlledPools, Subnet};

pub use member::{affinity_faults, carved_fault, changes_addresses, other_subnet_faults, outside_fault};

/// How many pools a message names.
const EXAMPLES: usize = 5;

/// Whom a subnet gets in the way of: other subnets, whatever they have; and pools of another prefix length, which cannot
/// belong to it. One that was valid keeps its `spec.subnet`, and is not asked again.
pub fn overlap_faults<'a>(
    new: &PoolFields<'_>,
    old: Option<&PoolFields<'_>>,
    others: impl IntoIterator<Item = &'a Subnet>,
    pools: impl IntoIterator<Item = &'a Pool>,
) -> Vec<FieldError> {
    let Some(subnet) = network(new.subnet).filter(|_| old.and_then(usable).is_none()) else {
        return Vec::new();
    };
    let fault = |kind: &str, name: &str, other: &IpNet| {
        let detail = format!("overlap with {kind} {name} which 'spec.subnet' is {other}");
        FieldError::invalid("spec.subnet", subnet, detail)
    };
    let others = others.into_iter().filter(|other| other.name.as_str() != new.name);
    let others = others.filter(|other| meet(&subnet, &other.subnet));
    let pools = pools.into_iter().filter(|pool| pool.subnet != subnet && meet(&subnet, &pool.subnet));
    let others = others.map(|other| fault("SpiderSubnet", other.name.as_str(), &other.subnet));
    others.chain(pools.map(|pool| fault("SpiderIPPool", pool.name.as_str(), &pool.subnet))).collect()
}

/// Addresses of Services are not for pods: pools with them would be refused.
pub fn service_fault(new: &PoolFields<'_>, service_cidrs: &[IpNet]) -> Option<FieldError> {
    let subnet = Pool::parse(&address_fields(new)).ok()?;
    let conflict = PoolConflict::with_service_cidrs(&subnet, service_cidrs)?;
    let PoolConflict::ServiceCidr { cidr, ranges, .. } = &conflict else { return None };
    let shared = IpSet::from_ranges(subnet.family(), ranges.iter().copied());
    let detail = format!(
        "SpiderSubnet {} overlaps the Service CIDR {cidr} in {}: {}",
        new.name,
        ranges::listed(&shared),
        conflict.remedy()
    );
    Some(FieldError::forbidden("spec.ips", detail))
}

/// What each pool has of a subnet, by name: what is recorded, which comes before the pool is written, and what the pools of
/// its CIDR have.
pub fn held<'a>(
    records: &ControlledPools,
    members: impl IntoIterator<Item = &'a Pool>,
) -> BTreeMap<String, IpSet> {
    let mut held: BTreeMap<_, _> =
        records.0.iter().map(|(name, record)| (name.clone(), record.ips.clone())).collect();
    for pool in members {
        held.entry(pool.name.to_string())
            .and_modify(|addresses| *addresses = addresses.union(&pool.usable))
            .or_insert_with(|| pool.usable.clone());
    }
    held.retain(|_, addresses| !addresses.is_empty());
    held
}

/// Addresses that pools have, and the subnet has not, or would not have any more. What it has lost before is not its
/// author's fault now.
pub fn held_faults(
    new: &PoolFields<'_>,
    old: Option<&PoolFields<'_>>,
    held: &BTreeMap<String, IpSet>,
) -> Vec<FieldError> {
    let Some(after) = usable(new) else { return Vec::new() };
    let before = old.and_then(usable);
    let faults = held.iter().filter_map(|(pool, addresses)| {
        let missing = addresses.difference(&after);
        let (missing, detail) = if let Some(before) = &before {
            let removed = missing.intersection(before);
            let ranges = ranges::listed(&removed);
            (removed, format!("remove some IP ranges [{ranges}] that is being used by IPPool {pool}"))
        } else {
            let detail = format!(
                "SpiderIPPool {pool} owns some IP addresses [{}] that SpiderSubnet {} can't control: add them, or take \
                 them from the pool",
                ranges::listed(&missing),
                new.name
            );
            (missing, detail)
        };
        (!missing.is_empty()).then(|| FieldError::forbidden("spec.ips", detail))
    });
    faults.collect()
}

/// Why a subnet is not deleted of which pools have addresses, where the cluster's settings say so.
pub fn deletion_fault(held: &BTreeMap<String, IpSet>) -> Option<FieldError> {
    let count = held.values().fold(0, |count: u128, addresses| count.saturating_add(addresses.len()));
    let names: Vec<_> = held.keys().take(EXAMPLES).map(String::as_str).collect();
    let more = match held.len().saturating_sub(EXAMPLES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let detail = format!(
        "cannot delete a SpiderSubnet with allocated IPs({count}): IPPool {}{more} have them, delete these first",
        names.join(", ")
    );
    (count > 0).then(|| FieldError::forbidden("status.allocatedIPCount", detail))
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().filter(|subnet| subnet.trunc() == *subnet)
}

fn meet(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

#[cfg(test)]
mod tests;
