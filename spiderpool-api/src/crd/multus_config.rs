//! SpiderMultusConfig: a network from which the controller makes a NetworkAttachmentDefinition.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// The main CNI plugin of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each variant is the plugin of that name")]
pub enum CniType {
    Macvlan,
    Ipvlan,
    Vlan,
    Sriov,
    Ovs,
    IbSriov,
    Ipoib,
    #[default]
    Custom,
}

/// Pools of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MultusPools {
    /// IPv4 pools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipv4: Vec<String>,
    /// IPv6 pools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ipv6: Vec<String>,
    /// Use only pools whose subnet fits the master NIC (SR-IOV).
    pub match_master_subnet: bool,
}

/// Masters joined into a bond.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Bond {
    /// The bond's name.
    pub name: String,
    /// Its mode.
    #[schemars(range(min = 0, max = 6))]
    pub mode: i32,
    /// Its options, `key=value;key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
}

/// Options of macvlan and ipvlan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VlanNicConfig {
    /// Master NICs; two or more need a bond.
    pub master: Vec<String>,
    /// MTU; 0 is the master's.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub mtu: i32,
    /// VLAN on top of the master; 0 for none.
    #[serde(default, rename = "vlanID", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4094))]
    pub vlan_id: Option<i32>,
    /// Joins the masters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
    /// RDMA resource that pods of the network ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma_resource_name: Option<String>,
    /// Pools of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

/// Options of vlan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VlanConfig {
    /// Master NICs; two or more need a bond.
    pub master: Vec<String>,
    /// MTU; 0 is the master's.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub mtu: i32,
    /// Who says which VLAN it is.
    #[serde(default)]
    pub vlan_mode: VlanMode,
    /// The VLAN.
    #[serde(default, rename = "vlanID", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4094))]
    pub vlan_id: Option<i32>,
    /// Joins the masters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bond: Option<Bond>,
    /// RDMA resource that pods of the network ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdma_resource_name: Option<String>,
    /// Pools of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

/// Who says which VLAN a NIC is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VlanMode {
    /// `vlanID`.
    #[default]
    Manual,
    /// The IaaS provider.
    Auto,
}

/// Options of sriov.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SriovConfig {
    /// The device plugin's resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// VLAN of the virtual function; 0 for none.
    #[serde(rename = "vlanID", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4094))]
    pub vlan_id: Option<i32>,
    /// MTU; 0 is the driver's.
    #[schemars(range(min = 0))]
    pub mtu: i32,
    /// Lowest transmit rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_tx_rate_mbps: Option<i32>,
    /// Highest transmit rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_tx_rate_mbps: Option<i32>,
    /// Whether the RDMA device is moved into the pod.
    pub rdma_isolation: bool,
    /// Pools of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

/// Options of ib-sriov.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct IbSriovConfig {
    /// The device plugin's resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// InfiniBand partition key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pkey: Option<String>,
    /// Link state of the virtual function.
    pub link_state: LinkState,
    /// Whether the RDMA device is moved into the pod.
    pub rdma_isolation: bool,
    /// Whether ib-kubernetes manages GUIDs.
    pub enable_ib_kubernetes: bool,
    /// Pools of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

impl Default for IbSriovConfig {
    fn default() -> Self {
        Self {
            resource_name: None,
            pkey: None,
            link_state: LinkState::Enable,
            rdma_isolation: true,
            enable_ib_kubernetes: false,
            ippools: None,
        }
    }
}

/// Link state of a virtual function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Follows the physical function.
    Auto,
    /// Always up.
    #[default]
    Enable,
    /// Always down.
    Disable,
}

/// Options of ipoib.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IpoibConfig {
    /// Master NIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Pools of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

/// Options of ovs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OvsConfig {
    /// The bridge.
    pub bridge: String,
    /// VLAN of the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<i32>,
    /// VLANs of a trunk port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunk: Vec<Trunk>,
    /// PCI address for hardware offload.
    #[serde(default, rename = "deviceID", skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Pools of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

/// VLANs of a trunk port: one, or a range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Trunk {
    /// First of a range.
    #[serde(rename = "minID", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4094))]
    pub min_id: Option<i32>,
    /// Last of a range.
    #[serde(rename = "maxID", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4094))]
    pub max_id: Option<i32>,
    /// One VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 4094))]
    pub id: Option<i32>,
}
