//! Addresses of a pool that pods use.

use std::net::IpAddr;

use crate::field_error::FieldError;

/// How many addresses a message names.
const EXAMPLES: usize = 5;

/// An address that is in use stays one of the pool's: without it nobody could tell whose address the pod has. `lost` are
/// addresses in use that the pool would not have any more. Their pods are not named: who may ask is not known.
pub fn in_use_fault(pool: &str, mut lost: Vec<IpAddr>) -> Option<FieldError> {
    if lost.is_empty() {
        return None;
    }
    lost.sort_unstable();
    let examples: Vec<_> = lost
        .iter()
        .take(EXAMPLES)
        .map(|address| format!("remove an IP address {address} that is being used by a Pod"))
        .collect();
    let more = match lost.len().saturating_sub(EXAMPLES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let label = crate::ipam::address_name::label_value(pool);
    let detail = format!(
        "{}{more}: see kubectl get spideripaddresses -l ipam.spidernet.io/ippool={label}",
        examples.join(", ")
    );
    Some(FieldError::forbidden("spec.ips", detail))
}

/// Why a pool with `count` addresses in use is not deleted, where the cluster's settings say so.
pub fn deletion_fault(count: usize) -> Option<FieldError> {
    let detail = format!("cannot delete an IPPool with allocated IPs({count})");
    (count > 0).then(|| FieldError::forbidden("status.allocatedIPCount", detail))
}
