//! SpiderMultusConfig: a network from which the controller makes a NetworkAttachmentDefinition.

use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;
use spiderpool_core::multus::{
    CniType, IbSriovConfig, IpoibConfig, MultusFields, OvsConfig, SriovConfig, VlanConfig, VlanNicConfig,
};

use super::coordinator::{self, CoordinatorSpec};

/// A network: the main CNI plugin with its options, and what is chained to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderMultusConfig",
    plural = "spidermultusconfigs",
    shortname = "smc",
    category = "spiderpool",
    namespaced,
    derive = "PartialEq",
    doc = "A network, from which a NetworkAttachmentDefinition is made."
)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.macvlan) == (self.cniType == 'macvlan')", "message": "cniType macvlan needs spec.macvlan, and no other cniType takes it"},
    {"rule": "has(self.ipvlan) == (self.cniType == 'ipvlan')", "message": "cniType ipvlan needs spec.ipvlan, and no other cniType takes it"},
    {"rule": "has(self.vlan) == (self.cniType == 'vlan')", "message": "cniType vlan needs spec.vlan, and no other cniType takes it"},
    {"rule": "has(self.sriov) == (self.cniType == 'sriov')", "message": "cniType sriov needs spec.sriov, and no other cniType takes it"},
    {"rule": "has(self.ovs) == (self.cniType == 'ovs')", "message": "cniType ovs needs spec.ovs, and no other cniType takes it"},
    {"rule": "has(self.ibsriov) == (self.cniType == 'ib-sriov')", "message": "cniType ib-sriov needs spec.ibsriov, and no other cniType takes it"},
    {"rule": "has(self.ipoib) == (self.cniType == 'ipoib')", "message": "cniType ipoib needs spec.ipoib, and no other cniType takes it"},
    {"rule": "!has(self.customCNI) || self.customCNI == '' || self.cniType == 'custom'", "message": "spec.customCNI is for cniType custom"},
]), transform = refuse_old_names)]
pub struct SpiderMultusConfigSpec {
    /// The main CNI plugin. The block of the same name holds its options.
    pub cni_type: CniType,
    /// Options of `cniType: macvlan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macvlan: Option<VlanNicConfig>,
    /// Options of `cniType: ipvlan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipvlan: Option<VlanNicConfig>,
    /// Options of `cniType: vlan`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanConfig>,
    /// Options of `cniType: sriov`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sriov: Option<SriovConfig>,
    /// Options of `cniType: ovs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ovs: Option<OvsConfig>,
    /// Options of `cniType: ib-sriov`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ibsriov: Option<IbSriovConfig>,
    /// Options of `cniType: ipoib`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipoib: Option<IpoibConfig>,
    /// Whether the coordinator is chained.
    pub enable_coordinator: bool,
    /// Whether the network goes without IPAM.
    #[serde(rename = "disableIPAM")]
    pub disable_ipam: bool,
    /// Options of the coordinator for this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "coordinator::network_schema")]
    pub coordinator: Option<CoordinatorSpec>,
    /// Further plugins to chain, each the JSON text of a CNI plugin configuration.
    #[serde(rename = "chainCNIJsonData", skip_serializing_if = "Vec::is_empty")]
    pub chain_cni_json_data: Vec<String>,
    /// The whole CNI configuration as JSON text, for `cniType: custom`.
    #[serde(rename = "customCNI", skip_serializing_if = "Option::is_none")]
    pub custom_cni: Option<String>,
}

impl Default for SpiderMultusConfigSpec {
    fn default() -> Self {
        Self {
            cni_type: CniType::Custom,
            macvlan: None,
            ipvlan: None,
            vlan: None,
            sriov: None,
            ovs: None,
            ibsriov: None,
            ipoib: None,
            enable_coordinator: true,
            disable_ipam: false,
            coordinator: None,
            chain_cni_json_data: Vec::new(),
            custom_cni: None,
        }
    }
}

impl<'a> From<&'a SpiderMultusConfig> for MultusFields<'a> {
    fn from(object: &'a SpiderMultusConfig) -> Self {
        let (meta, spec) = (&object.metadata, &object.spec);
        Self {
            name: meta.name.as_deref().unwrap_or_default(),
            annotations: meta.annotations.as_ref(),
            cni_type: spec.cni_type,
            macvlan: spec.macvlan.as_ref(),
            ipvlan: spec.ipvlan.as_ref(),
            vlan: spec.vlan.as_ref(),
            sriov: spec.sriov.as_ref(),
            ovs: spec.ovs.as_ref(),
            ibsriov: spec.ibsriov.as_ref(),
            ipoib: spec.ipoib.as_ref(),
            enable_coordinator: spec.enable_coordinator,
            disable_ipam: spec.disable_ipam,
            coordinator: spec.coordinator.as_ref().map(|block| &block.settings),
            chain: &spec.chain_cni_json_data,
            custom: spec.custom_cni.as_deref(),
        }
    }
}

/// Blocks that had `spiderpoolConfigPools` in Spiderpool 0.5 and older.
const POOLS_BEFORE: [&str; 3] = ["macvlan", "ipvlan", "sriov"];

/// Documents of older versions say what to do with them: without a schema of the field, some clients are told that it is
/// unknown, and for others the API server drops it, so that the network has no pools.
fn refuse_old_names(schema: &mut Schema) {
    let mut refuse = |block: &str, name: &str, kind: &str, message: &str| {
        let properties = schema.pointer_mut(&format!("/properties/{block}/properties"));
        if let Some(properties) = properties.and_then(serde_json::Value::as_object_mut) {
            let mut property = json!({
                "description": format!("From older versions, refused: {message}."),
                "type": kind,
                "x-kubernetes-validations": [{ "rule": "false", "message": message }],
            });
            if kind == "object" {
                property["x-kubernetes-preserve-unknown-fields"] = json!(true);
            }
            properties.insert(name.to_owned(), property);
        }
    };
    for block in POOLS_BEFORE {
        let message = "IPv4IPPool is ippools.ipv4 now, and IPv6IPPool is ippools.ipv6";
        refuse(block, "spiderpoolConfigPools", "object", message);
    }
    refuse("coordinator", "tuneMode", "string", "it is coordinator.mode now");
}
