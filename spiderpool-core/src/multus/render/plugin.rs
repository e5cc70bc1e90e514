//! Configurations of the plugins, their members in the order in which they are written.

use serde::Serialize;

use crate::multus::block::{
    Bond, CniType, IbSriovConfig, IpoibConfig, LinkState, MultusPools, OvsConfig, SriovConfig, Trunk,
    VlanMode,
};

/// The interface that the main plugin works on: the one master, or what `ifacer` makes of the masters.
pub(super) fn main_interface(masters: &[String], bond: Option<&Bond>, vlan_id: i32) -> String {
    let parent = match masters {
        [master] => master.as_str(),
        _ => bond.map_or("", |bond| bond.name.as_str()),
    };
    if vlan_id == 0 { parent.to_owned() } else { format!("{parent}.{vlan_id}") }
}

#[derive(Debug, Serialize)]
pub(super) struct Ipam<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    default_ipv4_ippool: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    default_ipv6_ippool: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    match_master_subnet: bool,
}

impl<'a> Ipam<'a> {
    pub(super) fn new(pools: Option<&'a MultusPools>, cni_type: CniType) -> Self {
        Self {
            r#type: "spiderpool",
            default_ipv4_ippool: pools.map_or(&[], |pools| &pools.ipv4),
            default_ipv6_ippool: pools.map_or(&[], |pools| &pools.ipv6),
            match_master_subnet: cni_type == CniType::Sriov
                && pools.is_some_and(|pools| pools.match_master_subnet),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct IfacerPlugin<'a> {
    #[serde(rename = "vlanID", skip_serializing_if = "is_zero")]
    vlan_id: i32,
    r#type: &'static str,
    interfaces: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    bond: Option<BondMember<'a>>,
}

#[derive(Debug, Serialize)]
struct BondMember<'a> {
    name: &'a str,
    mode: i32,
    options: &'a str,
}

impl<'a> IfacerPlugin<'a> {
    pub(super) fn new(vlan_id: i32, interfaces: &'a [String], bond: Option<&'a Bond>) -> Self {
        let bond = bond.map(|bond| BondMember {
            name: &bond.name,
            mode: bond.mode,
            options: bond.options.as_deref().unwrap_or_default(),
        });
        Self { vlan_id, r#type: "ifacer", interfaces, bond }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[derive(Debug, Serialize)]
pub(super) struct MacvlanPlugin<'a> {
    r#type: &'static str,
    master: String,
    mode: &'static str,
    mtu: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipam: Option<Ipam<'a>>,
}

impl<'a> MacvlanPlugin<'a> {
    pub(super) fn new(master: String, mtu: i32, ipam: Option<Ipam<'a>>) -> Self {
        Self { r#type: "macvlan", master, mode: "bridge", mtu, ipam }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct IpvlanPlugin<'a> {
    r#type: &'static str,
    master: String,
    mtu: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipam: Option<Ipam<'a>>,
}

impl<'a> IpvlanPlugin<'a> {
    pub(super) fn new(master: String, mtu: i32, ipam: Option<Ipam<'a>>) -> Self {
        Self { r#type: "ipvlan", master, mtu, ipam }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VlanPlugin<'a> {
    r#type: &'static str,
    master: String,
    vlan_mode: VlanMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan_id: Option<i32>,
    mtu: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipam: Option<Ipam<'a>>,
}

impl<'a> VlanPlugin<'a> {
    pub(super) fn new(
        master: String,
        vlan_mode: VlanMode,
        vlan_id: Option<i32>,
        mtu: i32,
        ipam: Option<Ipam<'a>>,
    ) -> Self {
        Self { r#type: "vlan", master, vlan_mode, vlan_id, mtu, ipam }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct SriovPlugin<'a> {
    vlan: i32,
    min_tx_rate: i32,
    max_tx_rate: i32,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipam: Option<Ipam<'a>>,
}

impl<'a> SriovPlugin<'a> {
    pub(super) fn new(config: &SriovConfig, ipam: Option<Ipam<'a>>) -> Self {
        Self {
            vlan: config.vlan_id.unwrap_or_default(),
            min_tx_rate: config.min_tx_rate_mbps.unwrap_or_default(),
            max_tx_rate: config.max_tx_rate_mbps.unwrap_or_default(),
            r#type: "sriov",
            ipam,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IbSriovPlugin<'a> {
    r#type: &'static str,
    pkey: &'a str,
    #[serde(rename = "link_state")]
    link_state: LinkState,
    rdma_isolation: bool,
    ib_kubernetes_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipam: Option<Ipam<'a>>,
}

impl<'a> IbSriovPlugin<'a> {
    pub(super) fn new(config: &'a IbSriovConfig, ipam: Option<Ipam<'a>>) -> Self {
        Self {
            r#type: "ib-sriov",
            pkey: config.pkey.as_deref().unwrap_or_default(),
            link_state: config.link_state,
            rdma_isolation: config.rdma_isolation,
            ib_kubernetes_enabled: config.enable_ib_kubernetes,
            ipam,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct IpoibPlugin<'a> {
    r#type: &'static str,
    master: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipam: Option<Ipam<'a>>,
}

impl<'a> IpoibPlugin<'a> {
    pub(super) fn new(config: &'a IpoibConfig, ipam: Option<Ipam<'a>>) -> Self {
        Self { r#type: "ipoib", master: config.master.as_deref().unwrap_or_default(), ipam }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct OvsPlugin<'a> {
    vlan: i32,
    r#type: &'static str,
    bridge: &'a str,
    #[serde(rename = "deviceID", skip_serializing_if = "Option::is_none")]
    device_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipam: Option<Ipam<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    trunk: &'a [Trunk],
}

impl<'a> OvsPlugin<'a> {
    pub(super) fn new(config: &'a OvsConfig, ipam: Option<Ipam<'a>>) -> Self {
        Self {
            vlan: config.vlan.unwrap_or_default(),
            r#type: "ovs",
            bridge: &config.bridge,
            device_id: config.device(),
            ipam,
            trunk: &config.trunk,
        }
    }
}

/// Moves the RDMA device into the pod.
#[derive(Debug, Serialize)]
pub(super) struct RdmaPlugin {
    r#type: &'static str,
}

impl Default for RdmaPlugin {
    fn default() -> Self {
        Self { r#type: "rdma" }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct TuningPlugin {
    r#type: &'static str,
    mtu: i32,
}

impl TuningPlugin {
    pub(super) fn new(mtu: i32) -> Self {
        Self { r#type: "tuning", mtu }
    }
}
