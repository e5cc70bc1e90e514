//! The blocks of a SpiderMultusConfig's spec, one per main CNI plugin, as the custom resource has them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The main CNI plugin of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct Bond {
    /// The bond's name.
    pub name: String,
    /// Its mode.
    #[cfg_attr(feature = "schemars", schemars(range(min = 0, max = 6)))]
    pub mode: i32,
    /// Its options, `key=value;key=value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
}

/// Options of macvlan and ipvlan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", schemars(extend("x-kubernetes-validations" = [
    {"rule": "size(self.master) < 2 || has(self.bond)", "message": "two or more masters need bond"},
    {"rule": "!has(self.ippools) || !has(self.ippools.matchMasterSubnet) || !self.ippools.matchMasterSubnet", "message": "ippools.matchMasterSubnet is for cniType sriov"},
])))]
pub struct VlanNicConfig {
    /// Master NICs; two or more need a bond.
    #[cfg_attr(feature = "schemars", schemars(length(min = 1), inner(length(min = 1, max = 15))))]
    pub master: Vec<String>,
    /// MTU; 0 is the master's.
    #[serde(default)]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0)))]
    pub mtu: i32,
    /// VLAN on top of the master; 0 for none.
    #[serde(default, rename = "vlanID", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0, max = 4094)))]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", schemars(extend("x-kubernetes-validations" = [
    {"rule": "size(self.master) < 2 || has(self.bond)", "message": "two or more masters need bond"},
    {"rule": "!has(self.ippools) || !has(self.ippools.matchMasterSubnet) || !self.ippools.matchMasterSubnet", "message": "ippools.matchMasterSubnet is for cniType sriov"},
    {"rule": "self.vlanMode == 'manual' || !has(self.vlanID)", "message": "vlanMode auto does not take vlanID"},
])))]
pub struct VlanConfig {
    /// Master NICs; two or more need a bond.
    #[cfg_attr(feature = "schemars", schemars(length(min = 1), inner(length(min = 1, max = 15))))]
    pub master: Vec<String>,
    /// MTU; 0 is the master's.
    #[serde(default)]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0)))]
    pub mtu: i32,
    /// Who says which VLAN it is.
    #[serde(default)]
    pub vlan_mode: VlanMode,
    /// The VLAN; absent is 0.
    #[serde(default, rename = "vlanID", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0, max = 4094)))]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum VlanMode {
    /// `vlanID`.
    #[default]
    Manual,
    /// The IaaS provider.
    Auto,
}

/// Options of sriov.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "schemars", schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.resourceName) && self.resourceName != ''", "message": "resourceName is required"},
    {"rule": "!has(self.minTxRateMbps) || !has(self.maxTxRateMbps) || self.maxTxRateMbps == 0 || self.minTxRateMbps <= self.maxTxRateMbps", "message": "minTxRateMbps must be at most maxTxRateMbps"},
])))]
pub struct SriovConfig {
    /// The device plugin's resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// VLAN of the virtual function; 0 for none.
    #[serde(rename = "vlanID", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0, max = 4094)))]
    pub vlan_id: Option<i32>,
    /// MTU; 0 is the driver's.
    #[cfg_attr(feature = "schemars", schemars(range(min = 0)))]
    pub mtu: i32,
    /// Lowest transmit rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0)))]
    pub min_tx_rate_mbps: Option<i32>,
    /// Highest transmit rate; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0)))]
    pub max_tx_rate_mbps: Option<i32>,
    /// Whether the RDMA device is moved into the pod.
    pub rdma_isolation: bool,
    /// Pools of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

/// Options of ib-sriov.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "schemars", schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.resourceName) && self.resourceName != ''", "message": "resourceName is required"},
    {"rule": "!has(self.ippools) || !has(self.ippools.matchMasterSubnet) || !self.ippools.matchMasterSubnet", "message": "ippools.matchMasterSubnet is for cniType sriov"},
])))]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(feature = "schemars", schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.master) && self.master != ''", "message": "master is required"},
    {"rule": "!has(self.ippools) || !has(self.ippools.matchMasterSubnet) || !self.ippools.matchMasterSubnet", "message": "ippools.matchMasterSubnet is for cniType sriov"},
])))]
pub struct IpoibConfig {
    /// Master NIC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Pools of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

/// Options of ovs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schemars", schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.ippools) || !has(self.ippools.matchMasterSubnet) || !self.ippools.matchMasterSubnet", "message": "ippools.matchMasterSubnet is for cniType sriov"},
])))]
pub struct OvsConfig {
    /// The bridge.
    #[cfg_attr(feature = "schemars", schemars(length(min = 1)))]
    pub bridge: String,
    /// VLAN of the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0, max = 4094)))]
    pub vlan: Option<i32>,
    /// VLANs of a trunk port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schemars", schemars(length(max = 4094)))]
    pub trunk: Vec<Trunk>,
    /// PCI address for hardware offload.
    #[serde(default, rename = "deviceID", skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Pools of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ippools: Option<MultusPools>,
}

/// VLANs of a trunk port: one, or a range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(default)]
#[cfg_attr(feature = "schemars", schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.minID) == has(self.maxID)", "message": "a range has minID and maxID"},
    {"rule": "!has(self.minID) || !has(self.maxID) || self.minID <= self.maxID", "message": "minID must be at most maxID"},
    {"rule": "has(self.id) || has(self.minID) || has(self.maxID)", "message": "id, or minID and maxID, is required"},
])))]
pub struct Trunk {
    /// First of a range.
    #[serde(rename = "minID", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0, max = 4094)))]
    pub min_id: Option<i32>,
    /// Last of a range.
    #[serde(rename = "maxID", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0, max = 4094)))]
    pub max_id: Option<i32>,
    /// One VLAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 0, max = 4094)))]
    pub id: Option<i32>,
}

impl CniType {
    /// The name in the spec of the block that holds its options.
    pub(super) fn block(self) -> Option<&'static str> {
        match self {
            Self::Macvlan => Some("macvlan"),
            Self::Ipvlan => Some("ipvlan"),
            Self::Vlan => Some("vlan"),
            Self::Sriov => Some("sriov"),
            Self::Ovs => Some("ovs"),
            Self::IbSriov => Some("ibsriov"),
            Self::Ipoib => Some("ipoib"),
            Self::Custom => None,
        }
    }
}

impl fmt::Display for CniType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IbSriov => "ib-sriov",
            Self::Custom => "custom",
            other => other.block().unwrap_or_default(),
        })
    }
}

impl OvsConfig {
    /// The device, if there is one.
    pub(super) fn device(&self) -> Option<&str> {
        self.device_id.as_deref().filter(|device| !device.is_empty())
    }
}
