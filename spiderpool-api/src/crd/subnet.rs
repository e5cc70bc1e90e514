//! SpiderSubnet: addresses that are given out to pools.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::{self, Route};

/// Addresses of one subnet that are given out to pools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderSubnet",
    plural = "spidersubnets",
    shortname = "ss",
    category = "spiderpool",
    status = "SubnetStatus",
    derive = "PartialEq",
    doc = "Addresses of one subnet that are given out to pools.",
    printcolumn = r#"{"name": "VERSION", "type": "string", "jsonPath": ".spec.ipVersion", "description": "IP version"}"#,
    printcolumn = r#"{"name": "SUBNET", "type": "string", "jsonPath": ".spec.subnet", "description": "subnet"}"#,
    printcolumn = r#"{"name": "ALLOCATED-IP-COUNT", "type": "integer", "jsonPath": ".status.allocatedIPCount", "description": "addresses given to pools"}"#,
    printcolumn = r#"{"name": "TOTAL-IP-COUNT", "type": "integer", "jsonPath": ".status.totalIPCount", "description": "usable addresses"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SpiderSubnetSpec {
    /// 4 or 6; derived from the subnet when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip_version")]
    pub ip_version: Option<i64>,
    /// The subnet in network form, `10.6.0.0/16`.
    #[schemars(schema_with = "schema::subnet")]
    pub subnet: String,
    /// Usable addresses: `A` or `A-B`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ranges")]
    pub ips: Vec<String>,
    /// Addresses taken out of `ips`.
    #[serde(default, rename = "excludeIPs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ranges")]
    pub exclude_ips: Vec<String>,
    /// Gateway of pools that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::gateway")]
    pub gateway: Option<String>,
    /// Routes of pools that have none of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
}

/// Which pools hold addresses of the subnet, as written by the controller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubnetStatus {
    /// A JSON object: pool to `{"ips": [...], "application": "..."}`. Absent when no pool holds an address.
    #[serde(default, rename = "controlledIPPools", skip_serializing_if = "Option::is_none")]
    pub controlled_ip_pools: Option<String>,
    /// Usable addresses, at most 2^63-1.
    #[serde(default, rename = "totalIPCount", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub total_ip_count: Option<i64>,
    /// Addresses given to pools.
    #[serde(default, rename = "allocatedIPCount", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::count")]
    pub allocated_ip_count: Option<i64>,
}
