//! The NetworkAttachmentDefinition of a network.

use std::collections::BTreeMap;

use super::annotations::{LAST_APPLIED, RESOURCE_NAME};
use super::{CniType, MultusFields, render, validate};
use crate::field_error::FieldError;

/// What a NetworkAttachmentDefinition is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name, in the namespace of the SpiderMultusConfig.
    pub name: String,
    /// Annotations of ours; those of others stay beside them.
    pub annotations: BTreeMap<String, String>,
    /// `spec.config`. `None`: no `spec.config`, and Multus looks for a file of this name on the node.
    pub config: Option<String>,
}

/// What is made of a SpiderMultusConfig, or all that is wrong with it.
pub fn plan_attachment(fields: &MultusFields<'_>) -> Result<Attachment, Vec<FieldError>> {
    let faults = validate(fields);
    if !faults.is_empty() {
        return Err(faults);
    }
    let config = render::render(fields)
        .map_err(|error| vec![FieldError::invalid("spec", fields.cni_type, error.to_string())])?;
    Ok(Attachment { name: fields.attachment_name().to_owned(), annotations: annotations(fields), config })
}

/// Upstream copies what `kubectl apply` remembers, too: the next `kubectl apply` of the NetworkAttachmentDefinition would
/// compare it with another kind.
fn annotations(fields: &MultusFields<'_>) -> BTreeMap<String, String> {
    let mut annotations = fields.annotations.cloned().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    annotations.extend(resource(fields).map(|resource| (RESOURCE_NAME.to_owned(), resource)));
    annotations
}

/// The device plugin's resource, of which Multus hands a device to the plugin.
fn resource(fields: &MultusFields<'_>) -> Option<String> {
    match fields.cni_type {
        CniType::Sriov | CniType::IbSriov => fields.resource_name().map(ToOwned::to_owned),
        CniType::Ovs => {
            let ovs = fields.ovs?;
            ovs.device().map(|_| format!("ovs-cni.network.kubevirt.io/{}", ovs.bridge))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multus::annotations::CR_NAME;
    use crate::multus::{IbSriovConfig, OvsConfig, SriovConfig};

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Upstream copies what kubectl remembers of the SpiderMultusConfig.
    #[test]
    fn annotations_are_copied_but_not_what_kubectl_remembers() {
        let own = texts(&[(CR_NAME, "net"), ("a/b", "c"), (LAST_APPLIED, "{}")]);
        let fields = MultusFields { name: "smc", annotations: Some(&own), ..MultusFields::default() };
        let attachment = plan_attachment(&fields).unwrap();
        assert_eq!(attachment.annotations, texts(&[(CR_NAME, "net"), ("a/b", "c")]));
        assert_eq!((attachment.name.as_str(), attachment.config), ("net", None));
    }

    #[test]
    fn devices_are_named_for_multus() {
        let name = Some("spidernet.io/vf".to_owned());
        let sriov = SriovConfig { resource_name: name.clone(), ..SriovConfig::default() };
        let ibsriov = IbSriovConfig { resource_name: name, ..IbSriovConfig::default() };
        let ovs = OvsConfig { bridge: "br1".into(), ..OvsConfig::default() };
        let offloaded = OvsConfig { device_id: Some("0000:3b:02.1".into()), ..ovs.clone() };
        let of = |fields: MultusFields<'_>| {
            let annotations = plan_attachment(&MultusFields { name: "n", ..fields }).unwrap().annotations;
            annotations.get(RESOURCE_NAME).cloned()
        };
        let default = MultusFields::default;
        let sriov = MultusFields { cni_type: CniType::Sriov, sriov: Some(&sriov), ..default() };
        assert_eq!(of(sriov).as_deref(), Some("spidernet.io/vf"));
        let ibsriov = MultusFields { cni_type: CniType::IbSriov, ibsriov: Some(&ibsriov), ..default() };
        assert_eq!(of(ibsriov).as_deref(), Some("spidernet.io/vf"));
        let ovs = MultusFields { cni_type: CniType::Ovs, ovs: Some(&ovs), ..default() };
        assert_eq!(of(ovs), None);
        let offloaded = MultusFields { ovs: Some(&offloaded), ..ovs };
        assert_eq!(of(offloaded).as_deref(), Some("ovs-cni.network.kubevirt.io/br1"));
    }
}
