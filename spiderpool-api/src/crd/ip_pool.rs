//! SpiderIPPool: ranges of one subnet from which pods get addresses, and who may use them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{self, Route};

/// Ranges of one subnet from which pods get addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderIPPool",
    plural = "spiderippools",
    shortname = "sp",
    category = "spiderpool",
    status = "IPPoolStatus",
    derive = "PartialEq",
    doc = "Ranges of one subnet from which pods get addresses, and who may use them.",
    printcolumn = r#"{"name": "VERSION", "type": "string", "jsonPath": ".spec.ipVersion", "description": "IP version"}"#,
    printcolumn = r#"{"name": "SUBNET", "type": "string", "jsonPath": ".spec.subnet", "description": "subnet"}"#,
    printcolumn = r#"{"name": "ALLOCATED-IP-COUNT", "type": "integer", "jsonPath": ".status.allocatedIPCount", "description": "addresses in use"}"#,
    printcolumn = r#"{"name": "TOTAL-IP-COUNT", "type": "integer", "jsonPath": ".status.totalIPCount", "description": "usable addresses"}"#,
    printcolumn = r#"{"name": "DEFAULT", "type": "boolean", "jsonPath": ".spec.default", "description": "used by pods that name no pool"}"#,
    printcolumn = r#"{"name": "DISABLE", "type": "boolean", "jsonPath": ".spec.disable", "description": "no new addresses", "priority": 10}"#,
    printcolumn = r#"{"name": "NodeName", "type": "string", "jsonPath": ".spec.nodeName", "description": "nodes that may use it", "priority": 10}"#,
    printcolumn = r#"{"name": "MultusName", "type": "string", "jsonPath": ".spec.multusName", "description": "networks that may use it", "priority": 10}"#,
    printcolumn = r#"{"name": "APP-NAMESPACE", "type": "string", "jsonPath": ".spec.podAffinity.matchLabels['ipam\\.spidernet\\.io/app\\-namespace']", "description": "namespace of the application it was made for", "priority": 10}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SpiderIPPoolSpec {
    /// 4 or 6; derived from the subnet when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip_version")]
    pub ip_version: Option<i64>,
    /// The subnet in network form, `10.6.0.0/16`. Its prefix length is that of the addresses handed out.
    #[schemars(schema_with = "schema::subnet")]
    pub subnet: String,
    /// Usable addresses: `A` or `A-B`. None listed, none usable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ranges")]
    pub ips: Vec<String>,
    /// Addresses taken out of `ips`.
    #[serde(default, rename = "excludeIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ranges")]
    pub exclude_ips: Vec<String>,
    /// Next hop of the default route: inside the subnet, but not one of the usable addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::gateway")]
    pub gateway: Option<String>,
    /// Further routes of every pod that uses the pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Pods that may use the pool, by their labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub pod_affinity: Option<LabelSelector>,
    /// Namespaces that may use the pool, by their labels. Ignored when `namespaceName` has an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_affinity: Option<LabelSelector>,
    /// Namespaces that may use the pool, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace_name: Vec<String>,
    /// Nodes that may use the pool, by their labels. Ignored when `nodeName` has an entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub node_affinity: Option<LabelSelector>,
    /// Nodes that may use the pool, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_name: Vec<String>,
    /// Networks that may use the pool: `namespace/name`, or a name in Spiderpool's own namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub multus_name: Vec<String>,
    /// Used by pods that name no pool.
    #[serde(default)]
    pub default: bool,
    /// No new addresses from this pool; those in use stay.
    #[serde(default)]
    pub disable: bool,
}

/// Who uses the pool, as written by the controller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// A JSON object: address to `{"pod": "namespace/name", "podUid": "..."}`. Absent when nothing is in use.
    #[serde(default, rename = "allocatedIPs", skip_serializing_if = "Option::is_none")]
    pub allocated_ips: Option<String>,
    /// Usable addresses, at most 2^63-1.
    #[serde(default, rename = "totalIPCount", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub total_ip_count: Option<i64>,
    /// Addresses in use.
    #[serde(default, rename = "allocatedIPCount", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub allocated_ip_count: Option<i64>,
    /// Whether pods get addresses from the pool, and what is unusual about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
