//! The configuration of our own plugin.

use serde::Serialize;

use crate::coordinator::{COORDINATOR, Mode, PolicyRouteText, Settings};

/// Only what the network's own block says is written, so that the rest is SpiderCoordinator's. Upstream writes what its
/// webhook fills into each block.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CoordinatorPlugin<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tx_queue_len: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    veth_link_address: Option<&'a str>,
    #[serde(rename = "vethMTU", skip_serializing_if = "Option::is_none")]
    veth_mtu: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tune_pod_routes: Option<bool>,
    #[serde(rename = "podMACPrefix", skip_serializing_if = "Option::is_none")]
    pod_mac_prefix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_default_route_nic: Option<&'a str>,
    #[serde(rename = "podRPFilter", skip_serializing_if = "Option::is_none")]
    pod_rp_filter: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_rule_table: Option<i64>,
    #[serde(rename = "hijackCIDR", skip_serializing_if = "<[_]>::is_empty")]
    hijack_cidr: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    policy_routes: &'a [PolicyRouteText],
}

impl<'a> CoordinatorPlugin<'a> {
    /// For a network with this block.
    pub(super) fn new(block: Option<&'a Settings>) -> Self {
        let block = block.filter(|block| !is_filled_in(block));
        let Some(settings) = block else { return Self::without_block() };
        Self {
            tx_queue_len: settings.tx_queue_len,
            veth_link_address: text(settings.veth_link_address.as_ref()),
            veth_mtu: settings.veth_mtu,
            tune_pod_routes: settings.tune_pod_routes,
            pod_mac_prefix: text(settings.pod_mac_prefix.as_ref()),
            mode: settings.mode.clone().filter(|mode| !mode.is_empty()),
            pod_default_route_nic: text(settings.pod_default_route_nic.as_ref()),
            pod_rp_filter: settings.pod_rp_filter,
            host_rule_table: settings.host_rule_table,
            hijack_cidr: settings.hijack_cidr.as_deref().unwrap_or_default(),
            policy_routes: settings.policy_routes.as_deref().unwrap_or_default(),
            ..Self::empty()
        }
    }

    /// What upstream writes for a network without a block. The plugin reads the three together as not decided here.
    fn without_block() -> Self {
        Self {
            tx_queue_len: Some(0),
            tune_pod_routes: Some(true),
            mode: Some(Mode::Auto.to_string()),
            ..Self::empty()
        }
    }

    fn empty() -> Self {
        Self {
            tx_queue_len: None,
            veth_link_address: None,
            veth_mtu: None,
            tune_pod_routes: None,
            pod_mac_prefix: None,
            mode: None,
            r#type: COORDINATOR,
            pod_default_route_nic: None,
            pod_rp_filter: None,
            host_rule_table: None,
            hijack_cidr: &[],
            policy_routes: &[],
        }
    }
}

/// Whether this is the block that upstream's webhook and definition write into objects without one. Upstream leaves the
/// last two out of its text, and they are not this network's own: SpiderCoordinator's count.
fn is_filled_in(block: &Settings) -> bool {
    let filled_in = Settings {
        mode: Some(Mode::Auto.to_string()),
        tx_queue_len: Some(0),
        tune_pod_routes: Some(true),
        pod_rp_filter: Some(0),
        host_rule_table: Some(500),
        ..Settings::default()
    };
    // Empty texts and lists set nothing.
    block.clone().or(Settings::default()) == filled_in
}

/// An empty text sets nothing.
fn text(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|text| !text.is_empty())
}
