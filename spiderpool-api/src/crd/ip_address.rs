//! SpiderIPAddress: one address in use. Creating it is the allocation, deleting it the release.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One address in use. The object's name is the address, so that no address is handed out twice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderIPAddress",
    plural = "spideripaddresses",
    shortname = "sip",
    category = "spiderpool",
    derive = "PartialEq",
    doc = "One address in use. Its name is the address: creating it is the allocation.",
    printcolumn = r#"{"name": "POOL", "type": "string", "jsonPath": ".spec.pool", "description": "pool"}"#,
    printcolumn = r#"{"name": "POD", "type": "string", "jsonPath": ".spec.podName", "description": "pod"}"#,
    printcolumn = r#"{"name": "NAMESPACE", "type": "string", "jsonPath": ".spec.podNamespace", "description": "the pod's namespace", "priority": 10}"#,
    printcolumn = r#"{"name": "INTERFACE", "type": "string", "jsonPath": ".spec.interface", "description": "NIC"}"#,
    printcolumn = r#"{"name": "NODE", "type": "string", "jsonPath": ".spec.node", "description": "node"}"#,
    printcolumn = r#"{"name": "STATE", "type": "string", "jsonPath": ".spec.state", "description": "bound, kept or quarantined"}"#,
    printcolumn = r#"{"name": "AGE", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SpiderIPAddressSpec {
    /// The address with the prefix length of its subnet, `10.6.212.145/16`.
    pub address: String,
    /// The pool that it was taken from.
    pub pool: String,
    /// The node whose agent holds it. Absent for an address that is kept without a running pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The pod's NIC that has it.
    pub interface: String,
    /// The pod sandbox.
    #[serde(default, rename = "containerID", skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// The CNI network's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Kind of the workload at the top of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner_kind: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner_name: String,
    /// Why the address is held.
    #[serde(default)]
    pub state: AddressState,
    /// Who was seen using a quarantined address, and until when nobody gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// Why an address is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AddressState {
    /// A pod has it.
    #[default]
    Bound,
    /// Waits for the next pod of the same name (StatefulSet, VM).
    Kept,
    /// Somebody else was seen using it on the wire.
    Quarantined,
}

/// Why and until when an address is not handed out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantine {
    /// The MAC address that answered for it.
    pub by: String,
    /// When it may be used again.
    pub until: Time,
}
