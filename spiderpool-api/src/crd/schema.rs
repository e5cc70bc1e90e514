//! Pieces of schema that several kinds share, and what the derive does not express.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A route of a pool, of an endpoint or of the coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// Destination in CIDR form.
    pub dst: String,
    /// Next hop.
    pub gw: String,
}

/// `ipVersion`: 4 or 6. The enum of numbers has no counterpart in the derive.
pub(super) fn ip_version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "enum": [4, 6] })
}

/// A count that the API server keeps from being negative.
pub(super) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int64", "minimum": 0 })
}

/// An IPv4 address.
const IPV4: &str =
    r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// What every IPv6 address is, and some other texts are too: the controller's condition names those.
const IPV6: &str = "[0-9A-Fa-f]*:[0-9A-Fa-f:.]+";

/// Ranges of addresses, `A` or `A-B`. CEL cannot say more: its functions for addresses begin with Kubernetes 1.31.
pub(super) fn ranges(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!("^({IPV4}(-{IPV4})?|{IPV6}(-{IPV6})?)$");
    json_schema!({ "type": "array", "items": { "type": "string", "pattern": pattern } })
}

/// A network in CIDR form.
pub(super) fn subnet(_: &mut SchemaGenerator) -> Schema {
    let (bits4, bits6) = ("(3[0-2]|[12]?[0-9])", "(12[0-8]|1[01][0-9]|[1-9]?[0-9])");
    json_schema!({ "type": "string", "pattern": format!("^({IPV4}/{bits4}|{IPV6}/{bits6})$") })
}

/// An address, or nothing.
pub(super) fn gateway(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": format!("^({IPV4}|{IPV6})?$") })
}

/// Conditions as Kubernetes' own types describe them: one per type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": { "type": "string", "maxLength": 316 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024 },
                "message": { "type": "string", "maxLength": 32768 },
            },
        },
    })
}

/// A label selector as Kubernetes' own types describe it: replaced as a whole by server-side apply.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": { "type": "object", "additionalProperties": { "type": "string" } },
            "matchExpressions": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "type": "string" },
                        "operator": { "type": "string" },
                        "values": {
                            "type": "array",
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string" },
                        },
                    },
                },
            },
        },
    })
}
