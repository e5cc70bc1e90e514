//! A SpiderMultusConfig as plain data.

use std::collections::BTreeMap;

use super::annotations::{CNI_CONFIG_NAME, CNI_VERSION, CR_NAME, DEFAULT_CNI_VERSION};
use super::block::{
    Bond, CniType, IbSriovConfig, IpoibConfig, MultusPools, OvsConfig, SriovConfig, VlanConfig, VlanNicConfig,
};
use crate::coordinator::Settings;

/// The members of a SpiderMultusConfig that decide.
#[derive(Debug, Clone, Copy, Default)]
pub struct MultusFields<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.annotations`.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// `spec.cniType`.
    pub cni_type: CniType,
    /// `spec.macvlan`.
    pub macvlan: Option<&'a VlanNicConfig>,
    /// `spec.ipvlan`.
    pub ipvlan: Option<&'a VlanNicConfig>,
    /// `spec.vlan`.
    pub vlan: Option<&'a VlanConfig>,
    /// `spec.sriov`.
    pub sriov: Option<&'a SriovConfig>,
    /// `spec.ovs`.
    pub ovs: Option<&'a OvsConfig>,
    /// `spec.ibsriov`.
    pub ibsriov: Option<&'a IbSriovConfig>,
    /// `spec.ipoib`.
    pub ipoib: Option<&'a IpoibConfig>,
    /// `spec.enableCoordinator`.
    pub enable_coordinator: bool,
    /// `spec.disableIPAM`.
    pub disable_ipam: bool,
    /// `spec.coordinator`.
    pub coordinator: Option<&'a Settings>,
    /// `spec.chainCNIJsonData`.
    pub chain: &'a [String],
    /// `spec.customCNI`.
    pub custom: Option<&'a str>,
}

impl<'a> MultusFields<'a> {
    /// An annotation. An empty one counts as absent.
    pub(super) fn annotation(&self, key: &str) -> Option<&'a str> {
        self.annotations?.get(key).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// Name of the NetworkAttachmentDefinition.
    pub fn attachment_name(&self) -> &'a str {
        self.annotation(CR_NAME).unwrap_or(self.name)
    }

    /// `name` of the configuration.
    pub(super) fn config_name(&self) -> &'a str {
        self.annotation(CNI_CONFIG_NAME).unwrap_or(self.attachment_name())
    }

    /// `cniVersion` of the configuration.
    pub(super) fn cni_version(&self) -> &'a str {
        self.annotation(CNI_VERSION).unwrap_or(DEFAULT_CNI_VERSION)
    }

    /// The type's own block: its name in the spec and its pools. `None` where there is no such block.
    pub(super) fn pools(&self) -> Option<(&'static str, &'a MultusPools)> {
        let pools = match self.cni_type {
            CniType::Macvlan => self.macvlan?.ippools.as_ref(),
            CniType::Ipvlan => self.ipvlan?.ippools.as_ref(),
            CniType::Vlan => self.vlan?.ippools.as_ref(),
            CniType::Sriov => self.sriov?.ippools.as_ref(),
            CniType::Ovs => self.ovs?.ippools.as_ref(),
            CniType::IbSriov => self.ibsriov?.ippools.as_ref(),
            CniType::Ipoib => self.ipoib?.ippools.as_ref(),
            CniType::Custom => None,
        };
        Some((self.cni_type.block()?, pools?))
    }

    /// The device that pods of the network share: a bond, the masters, or the resource they are of.
    pub(super) fn device_name(&self) -> String {
        let of_masters = |bond: Option<&Bond>, masters: &[String]| {
            bond.map_or_else(|| masters.join(","), |bond| bond.name.clone())
        };
        let of_nic = |nic: Option<&VlanNicConfig>| nic.map(|nic| of_masters(nic.bond.as_ref(), &nic.master));
        let name = match self.cni_type {
            CniType::Macvlan => of_nic(self.macvlan),
            CniType::Ipvlan => of_nic(self.ipvlan),
            CniType::Vlan => self.vlan.map(|vlan| of_masters(vlan.bond.as_ref(), &vlan.master)),
            _ => self.resource_name().map(ToOwned::to_owned),
        };
        name.unwrap_or_default()
    }

    /// The type's own block, or what of the resource pods ask for by it.
    pub(super) fn resource_name(&self) -> Option<&'a str> {
        let name = match self.cni_type {
            CniType::Macvlan => self.macvlan?.rdma_resource_name.as_deref(),
            CniType::Ipvlan => self.ipvlan?.rdma_resource_name.as_deref(),
            CniType::Vlan => self.vlan?.rdma_resource_name.as_deref(),
            CniType::Sriov => self.sriov?.resource_name.as_deref(),
            CniType::IbSriov => self.ibsriov?.resource_name.as_deref(),
            CniType::Ipoib => self.ipoib?.master.as_deref(),
            CniType::Ovs | CniType::Custom => None,
        };
        name.filter(|name| !name.is_empty())
    }
}
