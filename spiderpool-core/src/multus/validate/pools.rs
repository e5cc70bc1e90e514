//! Pools of a network. Whether they exist is not asked: they may be created later.

use crate::Unsupported;
use crate::field_error::FieldError;
use crate::ipam::pool_list::{PoolReference, ReferenceError};
use crate::multus::{CniType, MultusFields};

pub(super) fn faults(fields: &MultusFields<'_>) -> Vec<FieldError> {
    let Some((block, pools)) = fields.pools() else { return Vec::new() };
    let path = format!("spec.{block}.ippools");
    let mut faults = name_faults(&format!("{path}.ipv4"), &pools.ipv4);
    faults.extend(name_faults(&format!("{path}.ipv6"), &pools.ipv6));
    if pools.match_master_subnet {
        let detail = match fields.cni_type {
            CniType::Sriov => Unsupported::SriovMatchMasterSubnet.to_string(),
            other => format!("it is for cniType sriov, and this is {other}: remove it"),
        };
        faults.push(FieldError::forbidden(format!("{path}.matchMasterSubnet"), detail));
    }
    faults
}

fn name_faults(path: &str, names: &[String]) -> Vec<FieldError> {
    let fault = |(index, name): (usize, &String)| {
        let path = format!("{path}[{index}]");
        if names[..index].contains(name) {
            return Some(FieldError::duplicate(path, name));
        }
        match name.parse::<PoolReference>() {
            Ok(_) => None,
            Err(ReferenceError::Name(_)) => {
                Some(FieldError::invalid(path, name, "is no name of a SpiderIPPool"))
            }
            Err(error @ ReferenceError::Wildcard { .. }) => {
                Some(FieldError::invalid(path, name, error.to_string()))
            }
        }
    };
    names.iter().enumerate().filter_map(fault).collect()
}
