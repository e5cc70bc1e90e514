//! Pools of a network. Whether they exist is not asked: they may be created later.

use crate::Unsupported;
use crate::field_error::FieldError;
use crate::multus::{CniType, MultusFields};
use crate::names::is_subdomain;

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
        if name.contains(['*', '?', '[']) {
            let place = "ippools".to_owned();
            let refusal = Unsupported::PoolWildcard { pattern: name.clone(), place };
            return Some(FieldError::forbidden(path, refusal.to_string()));
        }
        if names[..index].contains(name) {
            return Some(FieldError::duplicate(path, name));
        }
        (!is_subdomain(name)).then(|| FieldError::invalid(path, name, "is no name of a SpiderIPPool"))
    };
    names.iter().enumerate().filter_map(fault).collect()
}
