//! All that is wrong with a SpiderMultusConfig, by field.

mod device;
mod metadata;
mod nic;
mod pools;
#[cfg(test)]
mod tests;

use super::annotations::CR_NAME;
use super::block::CniType;
use super::{MultusFields, chain};
use crate::field_error::FieldError;

/// All that is wrong with an object.
pub fn validate(fields: &MultusFields<'_>) -> Vec<FieldError> {
    let mut faults = metadata::faults(fields);
    faults.extend(block_faults(fields));
    match fields.cni_type {
        CniType::Custom => faults.extend(custom_faults(fields)),
        CniType::Macvlan => {
            faults.extend(fields.macvlan.map(|b| nic::faults("spec.macvlan", b)).into_iter().flatten());
        }
        CniType::Ipvlan => {
            faults.extend(fields.ipvlan.map(|b| nic::faults("spec.ipvlan", b)).into_iter().flatten());
        }
        CniType::Vlan => faults.extend(fields.vlan.map(nic::vlan_faults).into_iter().flatten()),
        CniType::Sriov => faults.extend(fields.sriov.map(device::sriov_faults).into_iter().flatten()),
        CniType::IbSriov => faults.extend(fields.ibsriov.map(device::ibsriov_faults).into_iter().flatten()),
        CniType::Ipoib => faults.extend(fields.ipoib.map(device::ipoib_faults).into_iter().flatten()),
        CniType::Ovs => faults.extend(fields.ovs.map(device::ovs_faults).into_iter().flatten()),
    }
    faults.extend(pools::faults(fields));
    if fields.cni_type != CniType::Custom {
        faults.extend(chain_faults(fields.chain));
        faults.extend(coordinator_faults(fields));
    }
    faults
}

/// All that is wrong with an object that takes the place of `old`.
pub fn validate_update(old: &MultusFields<'_>, new: &MultusFields<'_>) -> Vec<FieldError> {
    let mut faults = validate(new);
    if old.attachment_name() != new.attachment_name() || old.annotation(CR_NAME) != new.annotation(CR_NAME) {
        let detail = format!(
            "the NetworkAttachmentDefinition is named {:?}, and pods name it: it is not changed, added or removed later; \
             create another SpiderMultusConfig",
            old.attachment_name()
        );
        faults.push(FieldError::forbidden(metadata::path(CR_NAME), detail));
    }
    faults
}

/// Exactly the block of the type is there.
fn block_faults(fields: &MultusFields<'_>) -> Vec<FieldError> {
    let cni_type = fields.cni_type;
    let blocks = [
        ("macvlan", fields.macvlan.is_some()),
        ("ipvlan", fields.ipvlan.is_some()),
        ("vlan", fields.vlan.is_some()),
        ("sriov", fields.sriov.is_some()),
        ("ovs", fields.ovs.is_some()),
        ("ibsriov", fields.ibsriov.is_some()),
        ("ipoib", fields.ipoib.is_some()),
    ];
    let mut faults: Vec<_> = blocks
        .into_iter()
        .filter_map(|(block, is_there)| {
            let path = format!("spec.{block}");
            match (cni_type.block() == Some(block), is_there) {
                (true, false) => Some(FieldError::required(path, format!("cniType {cni_type} needs it"))),
                (false, true) => Some(FieldError::forbidden(
                    path,
                    format!("cniType is {cni_type}: remove this block, or change cniType"),
                )),
                _ => None,
            }
        })
        .collect();
    if cni_type != CniType::Custom && fields.custom.is_some_and(|text| !text.is_empty()) {
        let detail = format!("cniType is {cni_type}: remove it, or set cniType to custom");
        faults.push(FieldError::forbidden("spec.customCNI", detail));
    }
    faults
}

fn custom_faults(fields: &MultusFields<'_>) -> Vec<FieldError> {
    let text = fields.custom.unwrap_or_default();
    let parsed = if text.trim().is_empty() { Ok(()) } else { chain::parse_config(text).map(drop) };
    let mut faults: Vec<_> =
        parsed.err().map(|error| FieldError::invalid("spec.customCNI", text, error)).into_iter().collect();
    if !fields.chain.is_empty() {
        let detail = "cniType is custom: write the plugin into customCNI, which is the whole configuration";
        faults.push(FieldError::forbidden("spec.chainCNIJsonData", detail));
    }
    faults
}

fn chain_faults(chain: &[String]) -> Vec<FieldError> {
    let fault = |(index, text): (usize, &String)| {
        let error = chain::parse_plugin(text).err()?;
        Some(FieldError::invalid(format!("spec.chainCNIJsonData[{index}]"), text, error))
    };
    chain.iter().enumerate().filter_map(fault).collect()
}

fn coordinator_faults(fields: &MultusFields<'_>) -> Vec<FieldError> {
    const PATH: &str = "spec.coordinator";
    let Some(settings) = fields.coordinator else { return Vec::new() };
    settings.field_errors(PATH)
}
