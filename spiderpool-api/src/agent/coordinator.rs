//! What the coordinator plugin asks before it sets up a NIC: body and answer of `/v1/coordinator/config`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use spiderpool_core::names::IfName;

use super::ipam::null_as_default;

/// Body of GET `/v1/coordinator/config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetCoordinatorArgs {
    /// Name of the pod.
    pub pod_name: String,
    /// Namespace of the pod.
    pub pod_namespace: String,
}

/// Answer of GET `/v1/coordinator/config`: SpiderCoordinator's spec and status, after the pod's annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatorConfig {
    /// auto, underlay, overlay or disabled.
    #[serde(default, deserialize_with = "null_as_default")]
    pub mode: String,
    /// Overlay pod CIDRs, from the status.
    #[serde(default, rename = "overlayPodCIDR", deserialize_with = "null_as_default")]
    pub overlay_pod_cidr: Vec<String>,
    /// Service CIDRs, from the status.
    #[serde(default, rename = "serviceCIDR", deserialize_with = "null_as_default")]
    pub service_cidr: Vec<String>,
    /// Whether default routes are moved; `None` means yes.
    #[serde(default)]
    pub tune_pod_routes: Option<bool>,
    /// Further CIDRs that leave by the cluster NIC.
    #[serde(default, rename = "hijackCIDR", deserialize_with = "null_as_default")]
    pub hijack_cidr: Vec<String>,
    /// Routes that win over the CIDRs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub policy_routes: Vec<PolicyRoute>,
    /// Two bytes put before the address to make the NIC's MAC.
    #[serde(default, rename = "podMACPrefix", deserialize_with = "null_as_default")]
    pub pod_mac_prefix: String,
    /// The NIC that keeps the default route; empty means the one that has it.
    #[serde(default, rename = "podDefaultRouteNIC", deserialize_with = "null_as_default")]
    pub pod_default_route_nic: String,
    /// Table for `dataplane: policy`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub host_rule_table: i64,
    /// Value of rp_filter in the pod; negative leaves it alone.
    #[serde(default, rename = "podRPFilter", deserialize_with = "null_as_default")]
    pub pod_rp_filter: i64,
    /// txqueuelen of the NIC; 0 leaves it alone.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tx_queue_len: i64,
    /// IPv4 address for veth0 (underlay mode).
    #[serde(default, deserialize_with = "null_as_default")]
    pub veth_link_address: String,
    /// MTU of veth0 and of the node link.
    #[serde(default, rename = "vethMTU", deserialize_with = "null_as_default")]
    pub veth_mtu: i64,
    /// `ebpf` or `policy`. Our addition; an old agent that does not send it means `policy`.
    #[serde(default, deserialize_with = "null_as_default")]
    pub dataplane: String,
    /// `auto` or `never`. Our addition.
    #[serde(default, deserialize_with = "null_as_default")]
    pub route_hints: String,
    /// Addresses of the node that the pod must reach by its cluster NIC. Our addition.
    #[serde(default, deserialize_with = "null_as_default")]
    pub node_addresses: Vec<IpAddr>,
    /// The NICs that Multus makes beside the first, by the pod's annotation; `None` if it cannot be read, or the
    /// agent is an old one. Our addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_nics: Option<Vec<IfName>>,
}

/// A route of SpiderCoordinator's `policyRoutes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRoute {
    /// Destination, address or CIDR.
    #[serde(default, deserialize_with = "null_as_default")]
    pub dst: String,
    /// Next hop.
    #[serde(default, deserialize_with = "null_as_default")]
    pub gw: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go writes `null` for what is not set.
    #[test]
    fn null_is_nothing() {
        let names = serde_json::to_value(CoordinatorConfig::default()).unwrap();
        let nothing: serde_json::Map<_, _> =
            names.as_object().unwrap().keys().map(|name| (name.clone(), serde_json::Value::Null)).collect();
        let read: CoordinatorConfig = serde_json::from_value(nothing.into()).unwrap();
        assert_eq!(read, CoordinatorConfig::default());
        assert_eq!(serde_json::from_str::<CoordinatorConfig>("{}").unwrap(), CoordinatorConfig::default());
    }
}
