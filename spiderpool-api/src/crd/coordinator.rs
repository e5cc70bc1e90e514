//! SpiderCoordinator: how pods with several NICs are wired up.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use spiderpool_core::coordinator::Settings;

/// How pods are wired up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
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
#[serde(rename_all = "camelCase")]
#[schemars(transform = cluster_schema)]
pub struct CoordinatorSpec {
    /// What the coordinator plugin does in pods.
    #[serde(flatten)]
    pub settings: Settings,
    /// Where the pod CIDRs are read from. Absent means auto.
    #[serde(rename = "podCIDRType", skip_serializing_if = "Option::is_none")]
    pub pod_cidr_type: Option<PodCidrType>,
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

/// Where pod CIDRs are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodCidrType {
    /// From the CNI that is found.
    Auto,
    /// From kubeadm's configuration, the controller manager's arguments or the Nodes.
    Cluster,
    /// From Calico's IPPools.
    Calico,
    /// From Cilium's configuration and pools.
    Cilium,
    /// Nowhere.
    None,
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

/// Of the status, and of a network's CNI configuration only.
const NOT_IN_SPEC: [&str; 3] = ["overlayPodCIDR", "serviceCIDR", "podDefaultCniNic"];
/// What is decided for the whole cluster.
const CLUSTER_WIDE: [&str; 2] = ["dataplane", "ebpf"];
/// What the API server fills in, as upstream's CRD has it; the rest stays absent.
const FILLED_IN: [&str; 7] =
    ["mode", "tunePodRoutes", "hostRuleTable", "podRPFilter", "txQueueLen", "dataplane", "ebpf"];

/// The spec of the cluster's coordinator: the last layer of settings, so it may as well show the defaults.
fn cluster_schema(schema: &mut Schema) {
    let Some(properties) = properties(schema) else { return };
    properties.retain(|name, _| !NOT_IN_SPEC.contains(&name.as_str()));
    let defaults = serde_json::to_value(Settings::defaults()).unwrap_or_default();
    for name in FILLED_IN {
        if let Some(property) = properties.get_mut(name) {
            fill_in(property, &defaults[name]);
        }
    }
    if let Some(property) = properties.get_mut("podCIDRType") {
        fill_in(property, &json!("auto"));
    }
}

fn fill_in(property: &mut Value, default: &Value) {
    for (name, default) in default.as_object().into_iter().flatten() {
        if let Some(inner) = property.pointer_mut(&format!("/properties/{name}")) {
            fill_in(inner, default);
        }
    }
    property["default"] = default.clone();
}

/// The coordinator block of one network: as the cluster's, without what is decided for the whole cluster, and without
/// defaults, so that what is absent is the cluster's.
pub(super) fn network_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = CoordinatorSpec::json_schema(generator);
    if let Some(properties) = properties(&mut schema) {
        properties.retain(|name, _| !CLUSTER_WIDE.contains(&name.as_str()));
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            property.remove("default");
        }
    }
    schema
}

fn properties(schema: &mut Schema) -> Option<&mut Map<String, Value>> {
    schema.get_mut("properties").and_then(Value::as_object_mut)
}
