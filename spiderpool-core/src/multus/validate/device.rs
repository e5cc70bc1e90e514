//! sriov, ib-sriov, ipoib and ovs: NICs of a device plugin, of InfiniBand or of a bridge.

use super::nic::{VLAN_IDS, interface_fault, is_vlan_id};
use crate::field_error::FieldError;
use crate::multus::{IbSriovConfig, IpoibConfig, OvsConfig, SriovConfig, Trunk};

pub(super) fn sriov_faults(config: &SriovConfig) -> Vec<FieldError> {
    let mut faults: Vec<_> =
        resource_fault("spec.sriov", config.resource_name.as_deref()).into_iter().collect();
    faults.extend(vlan_fault("spec.sriov.vlanID", config.vlan_id));
    let numbers = [
        ("mtu", Some(config.mtu)),
        ("minTxRateMbps", config.min_tx_rate_mbps),
        ("maxTxRateMbps", config.max_tx_rate_mbps),
    ];
    for (field, value) in numbers {
        if let Some(value) = value.filter(|value| *value < 0) {
            faults.push(FieldError::invalid(format!("spec.sriov.{field}"), value, "must not be negative"));
        }
    }
    if let (Some(min), Some(max)) = (config.min_tx_rate_mbps, config.max_tx_rate_mbps)
        // 0 is no limit.
        && max != 0
        && min > max
    {
        let detail = format!("must be at most maxTxRateMbps, which is {max}");
        faults.push(FieldError::invalid("spec.sriov.minTxRateMbps", min, detail));
    }
    faults
}

pub(super) fn ibsriov_faults(config: &IbSriovConfig) -> Vec<FieldError> {
    resource_fault("spec.ibsriov", config.resource_name.as_deref()).into_iter().collect()
}

pub(super) fn ipoib_faults(config: &IpoibConfig) -> Vec<FieldError> {
    const PATH: &str = "spec.ipoib.master";
    let fault = match config.master.as_deref().filter(|name| !name.is_empty()) {
        None => Some(FieldError::required(PATH, "the InfiniBand interface of the node")),
        Some(name) => interface_fault(PATH, name),
    };
    fault.into_iter().collect()
}

pub(super) fn ovs_faults(config: &OvsConfig) -> Vec<FieldError> {
    let mut faults = Vec::new();
    if config.bridge.is_empty() {
        faults.push(FieldError::required("spec.ovs.bridge", "the Open vSwitch bridge of the node"));
    }
    faults.extend(vlan_fault("spec.ovs.vlan", config.vlan));
    for (index, trunk) in config.trunk.iter().enumerate() {
        faults.extend(trunk_faults(&format!("spec.ovs.trunk[{index}]"), trunk));
    }
    faults
}

fn resource_fault(path: &str, name: Option<&str>) -> Option<FieldError> {
    let is_missing = name.is_none_or(str::is_empty);
    is_missing.then(|| FieldError::required(format!("{path}.resourceName"), "the device plugin's resource"))
}

fn vlan_fault(path: &str, id: Option<i32>) -> Option<FieldError> {
    id.filter(|id| !is_vlan_id(*id)).map(|id| FieldError::invalid(path, id, VLAN_IDS))
}

fn trunk_faults(path: &str, trunk: &Trunk) -> Vec<FieldError> {
    let at = |field: &str| format!("{path}.{field}");
    let ids = [("minID", trunk.min_id), ("maxID", trunk.max_id), ("id", trunk.id)];
    let mut faults: Vec<_> = ids.into_iter().filter_map(|(field, id)| vlan_fault(&at(field), id)).collect();
    match (trunk.min_id, trunk.max_id) {
        (Some(min), Some(max)) if min > max => {
            let detail = format!("must be at most maxID, which is {max}");
            faults.push(FieldError::invalid(at("minID"), min, detail));
        }
        (Some(_), None) => faults.push(FieldError::required(at("maxID"), "a range has minID and maxID")),
        (None, Some(_)) => faults.push(FieldError::required(at("minID"), "a range has minID and maxID")),
        (None, None) if trunk.id.is_none() => {
            faults.push(FieldError::required(at("id"), "a VLAN, or a range of them by minID and maxID"));
        }
        _ => {}
    }
    faults
}
