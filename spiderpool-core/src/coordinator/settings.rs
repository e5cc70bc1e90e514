//! The coordinator's settings: one type for every source, one merge, one validation.
//!
//! SpiderCoordinator, SpiderMultusConfig, `spiderpool-init`, the agent's answer and the CNI configuration all carry
//! [`Settings`], as texts and numbers: a value that makes no sense costs the network that it is written for, and not
//! the watch that reads it. The layers, first wins, field by field:
//!
//! 1. the network's CNI configuration, which a SpiderMultusConfig's `coordinator` block becomes;
//! 2. the agent's answer: SpiderCoordinator's spec, with the CIDRs of its status and the pod's annotation;
//! 3. [`Settings::defaults`].
//!
//! In the first layer `mode: auto` and `txQueueLen: 0` count as not set, and beside both `tunePodRoutes: true`: every
//! NetworkAttachmentDefinition of a SpiderMultusConfig without a `coordinator` block has the three, and the cluster's
//! settings would never count.
//!
//! [`Settings::resolve`] merges them and checks the values, once, in the plugin that acts on the result.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::choice::{Dataplane, NodeLinkCallers, RouteHints};
use super::policy_route::{PolicyRoute, PolicyRouteText};
use super::values::{
    parse_cidrs, parse_link_address, parse_mtu, parse_nic, parse_rp_filter, parse_table, parse_tx_queue_len,
};
use super::{MacPrefix, Mode, Preference, SettingsError};
use crate::dataplane::OwnCidrs;
use crate::names::IfName;

/// Settings as one source has them. Absent, an empty text and an empty list all mean: not set here.
///
/// Members are named as in SpiderCoordinator; the CNI configuration is read with [`crate::go_json`], which takes
/// names in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Whether eth0 is the cluster's CNI (overlay) or an underlay NIC; auto looks at the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(extend("enum" = Mode::SPELLINGS)))]
    pub mode: Option<String>,
    /// The NIC that the main CNI plugin made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_default_cni_nic: Option<String>,
    /// The NIC that keeps the default route; absent means the first.
    #[serde(rename = "podDefaultRouteNIC", skip_serializing_if = "Option::is_none")]
    pub pod_default_route_nic: Option<String>,
    /// Pod CIDRs of the overlay.
    #[serde(rename = "overlayPodCIDR", skip_serializing_if = "Option::is_none")]
    pub overlay_pod_cidr: Option<Vec<String>>,
    /// Service CIDRs.
    #[serde(rename = "serviceCIDR", skip_serializing_if = "Option::is_none")]
    pub service_cidr: Option<Vec<String>>,
    /// Further destinations that leave by the cluster NIC: CIDRs or addresses.
    #[serde(rename = "hijackCIDR", skip_serializing_if = "Option::is_none")]
    pub hijack_cidr: Option<Vec<String>>,
    /// Routes that win over the CIDRs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_routes: Option<Vec<PolicyRouteText>>,
    /// Whether default routes of pods are moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tune_pod_routes: Option<bool>,
    /// Two bytes, `0a:1b`, put before the IPv4 address to make the NIC's MAC.
    #[serde(rename = "podMACPrefix", skip_serializing_if = "Option::is_none")]
    pub pod_mac_prefix: Option<String>,
    /// MTU of veth0 and of the node link.
    #[serde(rename = "vethMTU", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(range(min = 1)))]
    pub veth_mtu: Option<i64>,
    /// Address of veth0 in underlay mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub veth_link_address: Option<String>,
    /// Value of rp_filter in the pod; negative leaves it alone. 1 (strict) needs `dataplane: policy`.
    #[serde(rename = "podRPFilter", skip_serializing_if = "Option::is_none")]
    pub pod_rp_filter: Option<i64>,
    /// txqueuelen of the NICs; 0 leaves it alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_queue_len: Option<i64>,
    /// Table on the host for `dataplane: policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_rule_table: Option<i64>,
    /// What steers packets: eBPF programs on the pod's NICs, or rules and tables. Cluster-wide.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(extend("enum" = Dataplane::SPELLINGS)))]
    pub dataplane: Option<String>,
    /// Options of `dataplane: ebpf`. Cluster-wide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ebpf: Option<EbpfSettings>,
}

/// Options of `dataplane: ebpf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EbpfSettings {
    /// Routes in the pod's main table that let the kernel choose source, MTU and neighbor up front.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(extend("enum" = RouteHints::SPELLINGS)))]
    pub route_hints: Option<String>,
    /// Who opens flows to pods' underlay addresses by the node: also other pods of the node, or not. Pods get what is set when they start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schemars", schemars(extend("enum" = NodeLinkCallers::SPELLINGS)))]
    pub node_link: Option<String>,
}

/// The NIC that the main CNI plugin makes, unless `podDefaultCniNic` says otherwise.
const DEFAULT_FIRST_NIC: &str = "eth0";

/// All settings, merged and validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Mode.
    pub mode: Mode,
    /// The NIC that the main CNI plugin made.
    pub first_nic: IfName,
    /// The NIC that keeps the default route; `None` means the one that has it now.
    pub default_route_nic: Option<IfName>,
    /// Overlay, Service and hijack CIDRs, in this order.
    pub cluster_cidrs: Vec<IpNet>,
    /// The CIDRs of overlay pods among them.
    pub pod_cidrs: Vec<IpNet>,
    /// The CIDRs that the network's configuration names itself, so that the agent's of that kind do not apply.
    pub own_cidrs: OwnCidrs,
    /// Routes that win over the CIDRs.
    pub policy_routes: Vec<PolicyRoute>,
    /// Whether default routes are moved.
    pub tune_pod_routes: bool,
    /// First bytes of the NIC's MAC.
    pub mac_prefix: Option<MacPrefix>,
    /// MTU of the node link.
    pub mtu: u32,
    /// rp_filter in the pod; `None` leaves it alone.
    pub rp_filter: Option<u8>,
    /// Transmit queue of the NIC; `None` leaves it alone.
    pub tx_queue_len: Option<u32>,
    /// Address of veth0, for applications that need one there.
    pub veth_link_address: Option<Ipv4Addr>,
    /// Table on the node with the routes to pods' underlay addresses, for [`Dataplane::Policy`].
    pub host_rule_table: u32,
    /// What steers the packets.
    pub dataplane: Dataplane,
    /// Whether routes may hint the kernel at the cluster NIC.
    pub route_hints: RouteHints,
    /// Who may open flows to the pod by its node link.
    pub node_link: NodeLinkCallers,
}

impl Settings {
    /// The last layer. Every setting that has a default has it here and nowhere else.
    pub fn defaults() -> Self {
        Self {
            mode: Some(Mode::Auto.to_string()),
            pod_default_cni_nic: Some(DEFAULT_FIRST_NIC.to_owned()),
            tune_pod_routes: Some(true),
            veth_mtu: Some(1500),
            pod_rp_filter: Some(0),
            tx_queue_len: Some(0),
            host_rule_table: Some(500),
            dataplane: Some(Dataplane::Ebpf.to_string()),
            ebpf: Some(EbpfSettings {
                route_hints: Some(RouteHints::Auto.to_string()),
                node_link: Some(NodeLinkCallers::All.to_string()),
            }),
            ..Self::default()
        }
    }

    /// These settings, and those of a `lower` layer where they are not set here.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            mode: text(self.mode).or(lower.mode),
            pod_default_cni_nic: text(self.pod_default_cni_nic).or(lower.pod_default_cni_nic),
            pod_default_route_nic: text(self.pod_default_route_nic).or(lower.pod_default_route_nic),
            overlay_pod_cidr: list(self.overlay_pod_cidr).or(lower.overlay_pod_cidr),
            service_cidr: list(self.service_cidr).or(lower.service_cidr),
            hijack_cidr: list(self.hijack_cidr).or(lower.hijack_cidr),
            policy_routes: list(self.policy_routes).or(lower.policy_routes),
            tune_pod_routes: self.tune_pod_routes.or(lower.tune_pod_routes),
            pod_mac_prefix: text(self.pod_mac_prefix).or(lower.pod_mac_prefix),
            veth_mtu: self.veth_mtu.or(lower.veth_mtu),
            veth_link_address: text(self.veth_link_address).or(lower.veth_link_address),
            pod_rp_filter: self.pod_rp_filter.or(lower.pod_rp_filter),
            tx_queue_len: self.tx_queue_len.or(lower.tx_queue_len),
            host_rule_table: self.host_rule_table.or(lower.host_rule_table),
            dataplane: text(self.dataplane).or(lower.dataplane),
            ebpf: self.ebpf.unwrap_or_default().or(lower.ebpf.unwrap_or_default()),
        }
    }

    /// The NIC that the main CNI plugin made, for what needs no agent.
    pub fn first_nic(&self) -> Result<IfName, SettingsError> {
        let name = self.pod_default_cni_nic.as_deref().filter(|name| !name.is_empty());
        parse_nic("podDefaultCniNic", name.unwrap_or(DEFAULT_FIRST_NIC))
    }

    /// The network's settings over the cluster's over the defaults, validated as one.
    pub fn resolve(mut network: Self, mut cluster: Self) -> Result<Config, SettingsError> {
        let own_cidrs = network.own_cidrs()?;
        if network.is_without_block() {
            network.tune_pod_routes = None;
        }
        network.mode = network.mode.filter(|mode| mode.parse() != Ok(Mode::Auto));
        network.tx_queue_len = network.tx_queue_len.filter(|length| *length != 0);
        // Agents send 0 for an MTU that is not set, and upstream's know no dataplanes.
        cluster.veth_mtu = cluster.veth_mtu.filter(|mtu| *mtu > 0);
        cluster.host_rule_table = cluster.host_rule_table.filter(|table| *table > 0);
        cluster.dataplane = text(cluster.dataplane).or_else(|| Some(Dataplane::Policy.to_string()));
        // The cluster's setting, or what a node can do: a network does not bring programs to a node without them.
        if cluster.dataplane.as_deref().is_some_and(|text| text.parse() == Ok(Dataplane::Policy)) {
            network.dataplane = network.dataplane.filter(|text| text.parse() != Ok(Dataplane::Ebpf));
        }
        let settings = network.or(cluster).or(Self::defaults());
        let cidrs = [
            ("overlayPodCIDR", &settings.overlay_pod_cidr),
            ("serviceCIDR", &settings.service_cidr),
            ("hijackCIDR", &settings.hijack_cidr),
        ];
        let mut cluster_cidrs = Vec::new();
        for (field, texts) in cidrs {
            for cidr in parse_cidrs(field, texts.as_deref())? {
                if !cluster_cidrs.contains(&cidr) {
                    cluster_cidrs.push(cidr);
                }
            }
        }
        let routes = settings.policy_routes.iter().flatten();
        let default_route_nic = text(settings.pod_default_route_nic.clone());
        let ebpf = settings.ebpf.clone().unwrap_or_default();
        let (route_hints, node_link) = (text(ebpf.route_hints), text(ebpf.node_link));
        Ok(Config {
            mode: parse_or_default(settings.mode.as_deref())?,
            first_nic: settings.first_nic()?,
            default_route_nic: default_route_nic
                .map(|name| parse_nic("podDefaultRouteNic", &name))
                .transpose()?,
            cluster_cidrs,
            pod_cidrs: parse_cidrs("overlayPodCIDR", settings.overlay_pod_cidr.as_deref())?,
            own_cidrs,
            policy_routes: routes.map(PolicyRouteText::parse).collect::<Result<_, _>>()?,
            tune_pod_routes: settings.tune_pod_routes.unwrap_or(true),
            mac_prefix: text(settings.pod_mac_prefix).map(|text| text.parse()).transpose()?,
            mtu: parse_mtu(settings.veth_mtu)?,
            rp_filter: parse_rp_filter(settings.pod_rp_filter)?,
            tx_queue_len: parse_tx_queue_len(settings.tx_queue_len)?,
            veth_link_address: text(settings.veth_link_address)
                .map(|text| parse_link_address(&text))
                .transpose()?,
            host_rule_table: parse_table(settings.host_rule_table)?,
            dataplane: parse_or_default(settings.dataplane.as_deref())?,
            route_hints: parse_or_default(route_hints.as_deref())?,
            node_link: parse_or_default(node_link.as_deref())?,
        })
    }

    /// Whether this is what a network has that says nothing of its own: upstream's text of it.
    fn is_without_block(&self) -> bool {
        let is_auto = self.mode.as_deref().is_some_and(|mode| mode.parse() == Ok(Mode::Auto));
        is_auto && self.tx_queue_len == Some(0) && self.tune_pod_routes == Some(true)
    }

    /// The CIDRs by kind; an empty list names none.
    fn own_cidrs(&self) -> Result<OwnCidrs, SettingsError> {
        let own = |field, texts: &Option<Vec<String>>| {
            let parsed: BTreeSet<_> = parse_cidrs(field, texts.as_deref())?.into_iter().collect();
            Ok((!parsed.is_empty()).then_some(parsed))
        };
        Ok(OwnCidrs {
            pod: own("overlayPodCIDR", &self.overlay_pod_cidr)?,
            service: own("serviceCIDR", &self.service_cidr)?,
            hijack: own("hijackCIDR", &self.hijack_cidr)?,
        })
    }
}

impl EbpfSettings {
    /// `None` if neither sets anything.
    fn or(self, lower: Self) -> Option<Self> {
        let merged = Self {
            route_hints: text(self.route_hints).or(lower.route_hints),
            node_link: text(self.node_link).or(lower.node_link),
        };
        Some(merged).filter(|merged| *merged != Self::default())
    }
}

impl Config {
    /// Who should have the default route while `nic` is set up.
    pub fn preference<'a>(&'a self, nic: &'a IfName) -> Preference<'a> {
        Preference { wanted: self.default_route_nic.as_ref(), nic, first_nic: &self.first_nic }
    }
}

/// An empty text sets nothing.
fn text(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

/// An empty list sets nothing.
fn list<T>(value: Option<Vec<T>>) -> Option<Vec<T>> {
    value.filter(|list| !list.is_empty())
}

fn parse_or_default<T: FromStr + Default>(value: Option<&str>) -> Result<T, T::Err> {
    value.map_or_else(|| Ok(T::default()), str::parse)
}

#[cfg(test)]
mod tests;
