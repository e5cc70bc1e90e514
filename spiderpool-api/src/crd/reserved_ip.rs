//! SpiderReservedIP: addresses that no pod ever gets.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Addresses that no pod ever gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderReservedIP",
    plural = "spiderreservedips",
    shortname = "sr",
    category = "spiderpool",
    derive = "PartialEq",
    doc = "Addresses that no pod ever gets, whatever pool holds them.",
    printcolumn = r#"{"name": "VERSION", "type": "string", "jsonPath": ".spec.ipVersion", "description": "IP version"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SpiderReservedIPSpec {
    /// 4 or 6; derived from the first entry of `ips` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip_version")]
    pub ip_version: Option<i64>,
    /// Reserved addresses: `A` or `A-B`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ranges")]
    pub ips: Vec<String>,
}
