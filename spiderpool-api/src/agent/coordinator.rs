//! What the coordinator plugin asks before it sets up a NIC: body and answer of `/v1/coordinator/config`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use spiderpool_core::coordinator::Settings;
use spiderpool_core::names::{IfName, PodName, PoolName};

use super::ipam::null_as_default;

/// Body of GET `/v1/coordinator/config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetCoordinatorArgs {
    /// The pod.
    #[serde(flatten)]
    pub pod: PodName,
}

/// Answer of GET `/v1/coordinator/config`: the cluster's settings for a pod, and what only the agent knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoordinatorConfig {
    /// SpiderCoordinator's spec and the CIDRs of its status, after the pod's annotations.
    #[serde(flatten)]
    pub settings: Settings,
    /// Addresses of the node that the pod must reach by its cluster NIC. Our addition.
    #[serde(default, deserialize_with = "null_as_default")]
    pub node_addresses: Vec<IpAddr>,
    /// The NICs that Multus makes beside the first, by the pod's annotation; `None` if it cannot be read, or the
    /// agent is an old one. Our addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_nics: Option<Vec<IfName>>,
    /// The pools of the pod's addresses. Our addition.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub address_pools: BTreeMap<IpAddr, PoolName>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};
    use spiderpool_core::coordinator::{EbpfSettings, PolicyRouteText};

    use super::*;

    /// Go writes `null` for what is not set.
    #[test]
    fn null_is_nothing() {
        let names = [
            "mode",
            "overlayPodCIDR",
            "serviceCIDR",
            "tunePodRoutes",
            "hijackCIDR",
            "policyRoutes",
            "podMACPrefix",
            "podDefaultRouteNIC",
            "hostRuleTable",
            "podRPFilter",
            "txQueueLen",
            "vethLinkAddress",
            "vethMTU",
            "dataplane",
            "ebpf",
            "nodeAddresses",
            "expectedNics",
            "addressPools",
        ];
        let nothing: Map<_, _> = names.map(|name| (name.to_owned(), Value::Null)).into_iter().collect();
        let read: CoordinatorConfig = serde_json::from_value(nothing.into()).unwrap();
        assert_eq!(read, CoordinatorConfig::default());
        assert_eq!(serde_json::from_str::<CoordinatorConfig>("{}").unwrap(), CoordinatorConfig::default());
        let route = r#"{"policyRoutes":[{"dst":"1.2.3.0/24","gw":null}]}"#;
        let read: CoordinatorConfig = serde_json::from_str(route).unwrap();
        let dst = "1.2.3.0/24".to_owned();
        assert_eq!(read.settings.policy_routes, Some(vec![PolicyRouteText { dst, gw: String::new() }]));
    }

    /// Upstream's plugin refuses an answer without its four required members, also where they are empty.
    #[test]
    fn an_answer_on_the_wire() {
        let settings = Settings {
            mode: Some("auto".to_owned()),
            overlay_pod_cidr: Some(vec!["10.244.0.0/16".to_owned()]),
            service_cidr: Some(vec![]),
            tune_pod_routes: Some(true),
            pod_default_route_nic: Some(String::new()),
            pod_rp_filter: Some(0),
            ebpf: Some(EbpfSettings { route_hints: Some("auto".to_owned()), ..EbpfSettings::default() }),
            ..Settings::default()
        };
        let node_addresses = vec!["10.6.0.1".parse().unwrap()];
        let answer = CoordinatorConfig {
            settings,
            node_addresses,
            expected_nics: Some(vec![]),
            ..CoordinatorConfig::default()
        };
        let json = json!({
            "mode": "auto", "overlayPodCIDR": ["10.244.0.0/16"], "serviceCIDR": [], "tunePodRoutes": true,
            "podDefaultRouteNIC": "", "podRPFilter": 0, "ebpf": {"routeHints": "auto"},
            "nodeAddresses": ["10.6.0.1"], "expectedNics": [],
        });
        assert_eq!(serde_json::to_value(&answer).unwrap(), json);
        assert_eq!(serde_json::from_value::<CoordinatorConfig>(json).unwrap(), answer);
    }
}
