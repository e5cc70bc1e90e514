//! Addresses of a pool that belong to somebody else. An agent gives out none of them all the same, where two pools are
//! admitted at the same moment by two replicas: the older pool goes on.

use ipnet::IpNet;

use super::address_fields;
use crate::error_list::examples;
use crate::field_error::FieldError;
use crate::ipam::pool::{Pool, PoolConflict, PoolFields, shared_addresses};

/// What the pool shares with pools that give out addresses, and with Services. `is_new` adds that its subnet must be
/// equal to the subnets that it meets, or meet none: with two prefix lengths for one network, addresses of one pool are
/// taken for neighbors by pods of the other that they cannot reach.
pub fn overlap_faults<'a>(
    new: &PoolFields<'_>,
    is_new: bool,
    others: impl IntoIterator<Item = &'a Pool>,
    service_cidrs: &[IpNet],
) -> Vec<FieldError> {
    let Ok(pool) = Pool::parse(&address_fields(new)) else { return Vec::new() };
    if pool.disabled {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for other in others {
        if other.name == pool.name || other.disabled {
            continue;
        }
        let ranges = shared_addresses(&pool, other);
        if is_new && other.subnet != pool.subnet && meet(&pool.subnet, &other.subnet) {
            let detail =
                format!("overlap with IPPool {} which 'spec.subnet' is {}", other.name, other.subnet);
            faults.push(FieldError::invalid("spec.subnet", pool.subnet, detail));
        }
        if !ranges.is_empty() {
            let detail = format!("overlap with IPPool {} in IP ranges [{}]", other.name, examples(ranges));
            faults.push(FieldError::forbidden("spec.ips", detail));
        }
    }
    if let Some(conflict) = PoolConflict::with_service_cidrs(&pool, service_cidrs) {
        faults.push(FieldError::forbidden("spec.ips", format!("{conflict}: {}", conflict.remedy())));
    }
    faults
}

fn meet(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}
