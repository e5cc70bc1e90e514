//! macvlan, ipvlan and vlan: NICs on top of one of the node's.

use crate::Unsupported;
use crate::field_error::FieldError;
use crate::ifacer::parse_bond_options;
use crate::multus::{Bond, VlanConfig, VlanMode, VlanNicConfig};
use crate::names::IfName;
use crate::net::BondMode;

pub(super) const VLAN_IDS: &str = "must be from 0 to 4094";

pub(super) fn is_vlan_id(id: i32) -> bool {
    (0..=4094).contains(&id)
}

/// macvlan and ipvlan.
pub(super) fn faults(path: &str, config: &VlanNicConfig) -> Vec<FieldError> {
    let mut faults = master_faults(path, &config.master, config.bond.as_ref());
    faults.extend(mtu_fault(path, config.mtu));
    let vlan_id = config.vlan_id.unwrap_or_default();
    let at = format!("{path}.vlanID");
    if !is_vlan_id(vlan_id) {
        faults.push(FieldError::invalid(at, vlan_id, VLAN_IDS));
    } else if vlan_id != 0 {
        faults.extend(vlan_name_fault(at, config));
    }
    faults
}

/// The VLAN interface that ifacer makes is called by the interface that it is on, which has a name without a fault.
fn vlan_name_fault(at: String, config: &VlanNicConfig) -> Option<FieldError> {
    let base = match config.master.as_slice() {
        [master] => master,
        _ => &config.bond.as_ref()?.name,
    };
    let vlan_id = config.vlan_id.unwrap_or_default();
    let name = format!("{base}.{vlan_id}");
    (base.parse::<IfName>().is_ok() && name.parse::<IfName>().is_err()).then(|| {
        let detail = format!("the VLAN interface would be named {name}, which has more than 15 characters");
        FieldError::invalid(at, vlan_id, detail)
    })
}

/// vlan: the plugin makes the VLAN itself.
pub(super) fn vlan_faults(config: &VlanConfig) -> Vec<FieldError> {
    const PATH: &str = "spec.vlan";
    let mut faults = master_faults(PATH, &config.master, config.bond.as_ref());
    faults.extend(mtu_fault(PATH, config.mtu));
    let at = format!("{PATH}.vlanID");
    match (config.vlan_mode, config.vlan_id) {
        (VlanMode::Manual, Some(id)) if !is_vlan_id(id) => faults.push(FieldError::invalid(at, id, VLAN_IDS)),
        // Absent is 0, as upstream's webhook fills in: frames with a priority and no VLAN.
        (VlanMode::Manual, _) => {}
        (VlanMode::Auto, vlan_id) => {
            if vlan_id.is_some() {
                faults.push(FieldError::forbidden(
                    at,
                    "vlanMode is auto: remove it, or set vlanMode to manual",
                ));
            }
            faults.push(FieldError::forbidden(
                format!("{PATH}.vlanMode"),
                Unsupported::VlanModeAuto.to_string(),
            ));
        }
    }
    faults
}

fn mtu_fault(path: &str, mtu: i32) -> Option<FieldError> {
    (mtu < 0).then(|| FieldError::invalid(format!("{path}.mtu"), mtu, "must not be negative"))
}

fn master_faults(path: &str, masters: &[String], bond: Option<&Bond>) -> Vec<FieldError> {
    let path = |field: &str| format!("{path}.{field}");
    let mut faults = Vec::new();
    for (index, master) in masters.iter().enumerate() {
        let path = path(&format!("master[{index}]"));
        faults.extend(interface_fault(&path, master));
        if masters[..index].contains(master) {
            faults.push(FieldError::duplicate(path, master));
        }
    }
    if masters.is_empty() {
        faults.push(FieldError::required(path("master"), "the network interface of the node"));
    }
    if masters.len() < 2 {
        return faults;
    }
    match bond {
        None => faults.push(FieldError::required(path("bond"), "two or more masters are joined into a bond")),
        Some(bond) => faults.extend(bond_faults(&path("bond"), masters, bond)),
    }
    faults
}

fn bond_faults(path: &str, masters: &[String], bond: &Bond) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let at = format!("{path}.name");
    faults.extend(interface_fault(&at, &bond.name));
    if masters.contains(&bond.name) {
        let detail = "it is one of the masters that the bond is made of: give it another name";
        faults.push(FieldError::invalid(at, &bond.name, detail));
    }
    let Some(mode) = BondMode::of_number(bond.mode.into()) else {
        faults.push(FieldError::invalid(format!("{path}.mode"), bond.mode, "must be from 0 to 6"));
        return faults;
    };
    let members: Vec<IfName> = masters.iter().filter_map(|master| master.parse().ok()).collect();
    let options = bond.options.as_deref().unwrap_or_default();
    if let Err(error) = parse_bond_options(options, mode, &members) {
        faults.push(FieldError::invalid(format!("{path}.options"), options, error.to_string()));
    }
    faults
}

/// A text that is no name of an interface.
pub(super) fn interface_fault(path: &str, name: &str) -> Option<FieldError> {
    let detail = "a network interface name has 1 to 15 characters, none of them '/', ':' or white space";
    name.parse::<IfName>().is_err().then(|| FieldError::invalid(path, name, detail))
}
