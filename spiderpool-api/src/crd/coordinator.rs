//! SpiderCoordinator: how pods with several NICs are wired up.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::Route;

/// How pods are wired up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderCoordinator",
    plural = "spidercoordinators",
    shortname = "scc",
    category = "spiderpool",
    status = "SpiderCoordinatorStatus",
    derive = "PartialEq",
    doc = "How pods with several NICs are wired up. The cluster's one is named default."
)]
#[serde(rename_all = "camelCase", default)]
pub struct CoordinatorSpec {
    /// Whether eth0 is the cluster's CNI (overlay) or an underlay NIC; auto looks at the pod.
    #[schemars(schema_with = "coordinator_mode")]
    pub mode: CoordinatorMode,
    /// Where the pod CIDRs are read from.
    #[serde(rename = "podCIDRType", skip_serializing_if = "Option::is_none")]
    pub pod_cidr_type: Option<PodCidrType>,
    /// Further destinations that leave by the cluster NIC: CIDRs or addresses.
    #[serde(rename = "hijackCIDR", skip_serializing_if = "Vec::is_empty")]
    pub hijack_cidr: Vec<String>,
    /// Routes that win over the CIDRs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy_routes: Vec<Route>,
    /// Two bytes, `0a:1b`, put before the IPv4 address to make the NIC's MAC.
    #[serde(rename = "podMACPrefix", skip_serializing_if = "Option::is_none")]
    pub pod_mac_prefix: Option<String>,
    /// Whether a pod's replies and own flows are steered at all.
    pub tune_pod_routes: bool,
    /// The NIC that keeps the default route; absent means the first.
    #[serde(rename = "podDefaultRouteNIC", skip_serializing_if = "Option::is_none")]
    pub pod_default_route_nic: Option<String>,
    /// Table on the host for `dataplane: policy`.
    pub host_rule_table: i64,
    /// Value of rp_filter in the pod; negative leaves it alone.
    #[serde(rename = "podRPFilter")]
    pub pod_rp_filter: i64,
    /// txqueuelen of the NICs; 0 leaves it alone.
    pub tx_queue_len: i64,
    /// Address of veth0 in underlay mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub veth_link_address: Option<String>,
    /// MTU of veth0 and of the node link.
    #[serde(rename = "vethMTU", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub veth_mtu: Option<i64>,
    /// What steers packets: eBPF programs on the pod's NICs, or rules and tables. Cluster-wide.
    pub dataplane: Dataplane,
    /// Options of `dataplane: ebpf`. Cluster-wide.
    pub ebpf: EbpfOptions,
    /// From older versions, accepted and ignored: `ipam.enableGatewayDetection` of the agent replaces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_gateway: Option<bool>,
    /// From older versions, accepted and ignored: `ipam.enableIPConflictDetection` of the agent replaces it.
    #[serde(rename = "detectIPConflict", skip_serializing_if = "Option::is_none")]
    pub detect_ip_conflict: Option<bool>,
    /// From older versions, accepted and ignored: `podRPFilter` replaces it.
    #[serde(rename = "hostRPFilter", skip_serializing_if = "Option::is_none")]
    pub host_rp_filter: Option<i64>,
}

impl Default for CoordinatorSpec {
    fn default() -> Self {
        Self {
            mode: CoordinatorMode::Auto,
            pod_cidr_type: None,
            hijack_cidr: Vec::new(),
            policy_routes: Vec::new(),
            pod_mac_prefix: None,
            tune_pod_routes: true,
            pod_default_route_nic: None,
            host_rule_table: 500,
            pod_rp_filter: 0,
            tx_queue_len: 0,
            veth_link_address: None,
            veth_mtu: None,
            dataplane: Dataplane::Ebpf,
            ebpf: EbpfOptions::default(),
            detect_gateway: None,
            detect_ip_conflict: None,
            host_rp_filter: None,
        }
    }
}

impl CoordinatorSpec {
    /// Fields that are accepted for old manifests and change nothing; to be warned about.
    pub fn ignored_fields(&self) -> Vec<&'static str> {
        [
            ("detectGateway", self.detect_gateway.is_some()),
            ("detectIPConflict", self.detect_ip_conflict.is_some()),
            ("hostRPFilter", self.host_rp_filter.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, set)| set.then_some(name))
        .collect()
    }
}

/// What eth0 is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CoordinatorMode {
    /// Decided per pod.
    #[default]
    Auto,
    /// eth0 is an underlay NIC.
    Underlay,
    /// eth0 belongs to the cluster's CNI.
    Overlay,
    /// The coordinator does nothing.
    #[serde(alias = "disable")]
    Disabled,
}

impl CoordinatorMode {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Underlay => "underlay",
            Self::Overlay => "overlay",
            Self::Disabled => "disabled",
        }
    }
}

/// Both spellings of `disabled` are in use.
fn coordinator_mode(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": ["auto", "underlay", "overlay", "disabled", "disable"] })
}

/// Where pod CIDRs are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodCidrType {
    /// From the CNI that is found.
    Auto,
    /// From kubeadm's configuration or the controller manager's arguments.
    Cluster,
    /// From Calico's IPPools.
    Calico,
    /// From Cilium's configuration.
    Cilium,
    /// Nowhere.
    None,
}

/// What steers packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dataplane {
    /// tc programs on the pod's NICs.
    #[default]
    Ebpf,
    /// ip rules, tables and connection marks.
    Policy,
}

impl Dataplane {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Policy => "policy",
        }
    }
}

/// Options of `dataplane: ebpf`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EbpfOptions {
    /// Routes in the pod's main table that let the kernel choose source, MTU and neighbour up front.
    pub route_hints: RouteHints,
}

/// Whether pods get route hints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteHints {
    /// Pods whose default route is on an underlay NIC get them.
    #[default]
    Auto,
    /// No pod gets them.
    Never,
}

impl RouteHints {
    /// The text on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
        }
    }
}

/// What the controller found out about the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpiderCoordinatorStatus {
    /// Synced, or why pods cannot be wired up yet.
    pub phase: CoordinatorPhase,
    /// What is missing while the phase is NotReady.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Pod CIDRs of the cluster's CNI.
    #[serde(default, rename = "overlayPodCIDR", skip_serializing_if = "Vec::is_empty")]
    pub overlay_pod_cidr: Vec<String>,
    /// Service CIDRs.
    #[serde(default, rename = "serviceCIDR", skip_serializing_if = "Vec::is_empty")]
    pub service_cidr: Vec<String>,
}

/// Whether the status can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CoordinatorPhase {
    /// The CIDRs are known.
    Synced,
    /// They are not.
    NotReady,
}

/// The coordinator block of one network: as the cluster's, without what is decided for the whole cluster.
pub(super) fn network_coordinator(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = CoordinatorSpec::json_schema(generator);
    if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        properties.remove("dataplane");
        properties.remove("ebpf");
    }
    schema
}
