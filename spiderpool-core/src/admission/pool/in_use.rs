//! Addresses of a pool that pods use.

use std::net::IpAddr;

use crate::field_error::FieldError;
use crate::ip::IpSet;

/// How many addresses a message names.
const EXAMPLES: usize = 5;

/// An address that is in use stays one of the pool's: without it nobody could tell whose address the pod has. `usable`
/// is what the pool has after the change, `in_use` addresses with their pods.
pub fn in_use_fault(usable: &IpSet, in_use: &[(IpAddr, String)]) -> Option<FieldError> {
    let mut lost: Vec<_> = in_use.iter().filter(|(address, _)| !usable.contains(*address)).collect();
    lost.sort();
    let examples: Vec<_> = lost
        .iter()
        .take(EXAMPLES)
        .map(|(address, pod)| format!("remove an IP address {address} that is being used by Pod {pod}"))
        .collect();
    let more = match lost.len().saturating_sub(EXAMPLES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    (!lost.is_empty()).then(|| FieldError::forbidden("spec.ips", format!("{}{more}", examples.join(", "))))
}

/// Why a pool with `count` addresses in use is not deleted, where the cluster's settings say so.
pub fn deletion_fault(count: usize) -> Option<FieldError> {
    let detail = format!("cannot delete an IPPool with allocated IPs({count})");
    (count > 0).then(|| FieldError::forbidden("status.allocatedIPCount", detail))
}
