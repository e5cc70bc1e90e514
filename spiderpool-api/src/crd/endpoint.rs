//! SpiderEndpoint: what addresses a pod holds, over all its NICs.
//!
//! It has a `status` member, but neither a spec nor a status subresource: `status` is written with the object.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::Route;

/// A SpiderEndpoint has no spec. [`super::CRDs`] takes the status subresource out of its CRD.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "spiderpool.spidernet.io",
    version = "v2beta1",
    kind = "SpiderEndpoint",
    plural = "spiderendpoints",
    shortname = "se",
    category = "spiderpool",
    namespaced,
    no_spec,
    status = "SpiderEndpointStatus",
    derive = "PartialEq",
    doc = "The addresses that a pod holds. Its name is the pod's.",
    printcolumn = r#"{"name": "INTERFACE", "type": "string", "jsonPath": ".status.current.ips[0].interface", "description": "first NIC"}"#,
    printcolumn = r#"{"name": "IPV4POOL", "type": "string", "jsonPath": ".status.current.ips[0].ipv4Pool", "description": "its IPv4 pool"}"#,
    printcolumn = r#"{"name": "IPV4", "type": "string", "jsonPath": ".status.current.ips[0].ipv4", "description": "its IPv4 address"}"#,
    printcolumn = r#"{"name": "IPV6POOL", "type": "string", "jsonPath": ".status.current.ips[0].ipv6Pool", "description": "its IPv6 pool"}"#,
    printcolumn = r#"{"name": "IPV6", "type": "string", "jsonPath": ".status.current.ips[0].ipv6", "description": "its IPv6 address"}"#,
    printcolumn = r#"{"name": "NODE", "type": "string", "jsonPath": ".status.current.node", "description": "the pod's node"}"#
)]
pub struct NoSpec {}

/// What a pod holds, and which workload it belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpiderEndpointStatus {
    /// What the pod holds now.
    pub current: EndpointAllocation,
    /// Kind of the workload at the top: `Deployment`, or `Pod` when there is none.
    pub owner_controller_type: String,
    /// Its name.
    pub owner_controller_name: String,
}

/// What a pod holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointAllocation {
    /// The pod's UID.
    pub uid: String,
    /// The pod's node.
    pub node: String,
    /// One entry per NIC.
    pub ips: Vec<EndpointIp>,
}

/// The addresses of one NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointIp {
    /// The NIC; empty when it is not known yet which one takes the entry.
    pub interface: String,
    /// IPv4 address with the prefix length of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// IPv6 address with the prefix length of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
    /// Pool of the IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_pool: Option<String>,
    /// Pool of the IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_pool: Option<String>,
    /// VLAN id, 0 for none.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4094))]
    pub vlan: i64,
    /// The IPv4 pool's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_gateway: Option<String>,
    /// The IPv6 pool's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_gateway: Option<String>,
    /// The NIC has no default route although its pool has a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_gateway: Option<bool>,
    /// Routes of the NIC, without its default route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// MAC address wanted by an IaaS provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A derive that adds `spec` to the wire, or a subresource to the CRD, would lose the status on create.
    #[test]
    fn an_endpoint_is_metadata_and_status() {
        let mut endpoint = SpiderEndpoint::new("web-0", NoSpec {});
        endpoint.status = Some(SpiderEndpointStatus {
            current: EndpointAllocation { uid: "u".into(), node: "n".into(), ips: Vec::new() },
            owner_controller_type: "StatefulSet".into(),
            owner_controller_name: "web".into(),
        });
        let wire = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1",
            "kind": "SpiderEndpoint",
            "metadata": { "name": "web-0" },
            "status": {
                "current": { "uid": "u", "node": "n", "ips": [] },
                "ownerControllerType": "StatefulSet",
                "ownerControllerName": "web",
            },
        });
        assert_eq!(serde_json::to_value(&endpoint).unwrap(), wire);
        assert_eq!(serde_json::from_value::<SpiderEndpoint>(wire).unwrap(), endpoint);
    }
}
