//! SpiderIPPoolUsage: which addresses of a pool are in use, as a bitmap that agents read before they pick.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which addresses of an aligned block of 65,536 are in use. A hint: what counts is SpiderIPAddress.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderIPPoolUsage",
    plural = "spiderippoolusages",
    shortname = "sipu",
    category = "spiderpool",
    derive = "PartialEq",
    doc = "Which addresses of a pool are in use, per aligned block of 65,536. A hint for picking; what counts is SpiderIPAddress.",
    printcolumn = r#"{"name": "POOL", "type": "string", "jsonPath": ".spec.pool", "description": "pool"}"#,
    printcolumn = r#"{"name": "BASE", "type": "string", "jsonPath": ".spec.base", "description": "first address of the block"}"#,
    printcolumn = r#"{"name": "IN-USE", "type": "integer", "jsonPath": ".spec.inUse", "description": "addresses in use"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SpiderIPPoolUsageSpec {
    /// The pool.
    pub pool: String,
    /// First address of the block.
    pub base: String,
    /// Bit n is the address `base` + n; lowest bit of a byte first; base64; zero bytes at the end are left out.
    pub bitmap: String,
    /// The number of bits that are set.
    #[schemars(range(min = 0, max = 65536))]
    pub in_use: i64,
}
