//! What the coordinator plugin asks before it sets up a NIC: body and answer of `/v1/coordinator/config`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
    pub mode: String,
    /// Overlay pod CIDRs, from the status.
    #[serde(rename = "overlayPodCIDR")]
    pub overlay_pod_cidr: Vec<String>,
    /// Service CIDRs, from the status.
    #[serde(rename = "serviceCIDR")]
    pub service_cidr: Vec<String>,
    /// Whether replies and own flows are steered at all.
    pub tune_pod_routes: bool,
    /// Further CIDRs that leave by the cluster NIC.
    #[serde(default, rename = "hijackCIDR")]
    pub hijack_cidr: Vec<String>,
    /// Routes that win over the CIDRs.
    #[serde(default)]
    pub policy_routes: Vec<PolicyRoute>,
    /// Two bytes put before the address to make the NIC's MAC.
    #[serde(default, rename = "podMACPrefix")]
    pub pod_mac_prefix: String,
    /// The NIC that keeps the default route; empty means the first.
    #[serde(default, rename = "podDefaultRouteNIC")]
    pub pod_default_route_nic: String,
    /// Table for `dataplane: policy`.
    #[serde(default)]
    pub host_rule_table: i64,
    /// Value of rp_filter in the pod; negative leaves it alone.
    #[serde(default, rename = "podRPFilter")]
    pub pod_rp_filter: i64,
    /// txqueuelen of the NIC; 0 leaves it alone.
    #[serde(default)]
    pub tx_queue_len: i64,
    /// IPv4 address for veth0 (underlay mode).
    #[serde(default)]
    pub veth_link_address: String,
    /// MTU of veth0 and of the node link.
    #[serde(default, rename = "vethMTU")]
    pub veth_mtu: i64,
    /// `ebpf` or `policy`. Our addition; an old agent that does not send it means `policy`.
    #[serde(default)]
    pub dataplane: String,
    /// `auto` or `never`. Our addition.
    #[serde(default)]
    pub route_hints: String,
    /// Addresses of the node that the pod must reach by its cluster NIC. Our addition.
    #[serde(default)]
    pub node_addresses: Vec<IpAddr>,
}

/// A route of SpiderCoordinator's `policyRoutes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRoute {
    /// Destination, address or CIDR.
    pub dst: String,
    /// Next hop.
    pub gw: String,
}
