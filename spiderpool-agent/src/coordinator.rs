//! What the coordinator plugin is told: SpiderCoordinator's spec and status, after the pod's annotations.

use std::net::IpAddr;

use spiderpool_api::agent::coordinator::{CoordinatorConfig, PolicyRoute};
use spiderpool_api::annotations::DEFAULT_ROUTE_NIC;
use spiderpool_api::crd::{CoordinatorPhase, SpiderCoordinator};
use spiderpool_core::ipam::annotations::key::MULTUS_NETWORKS as NETWORKS;
use spiderpool_core::ipam::multus;
use spiderpool_core::names::IfName;
use thiserror::Error;
use tracing::warn;

use crate::watches::Pod;

/// Why a pod cannot be wired up now.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum CoordinatorError {
    /// No SpiderCoordinator exists.
    #[error("coordinator config not found: create a SpiderCoordinator named default")]
    Missing,
    /// Its status cannot be used.
    #[error("spidercoordinator: {name} no ready: {reason}")]
    NotReady {
        /// Its name.
        name: String,
        /// What its status says.
        reason: String,
    },
}

/// The status, if it is in use.
pub fn check_ready(coordinator: &SpiderCoordinator) -> Result<(), CoordinatorError> {
    let status = coordinator.status.as_ref();
    if status.is_some_and(|status| status.phase == CoordinatorPhase::Synced) {
        return Ok(());
    }
    let reason = status.and_then(|status| status.reason.clone());
    Err(CoordinatorError::NotReady {
        name: coordinator.metadata.name.clone().unwrap_or_default(),
        reason: reason.unwrap_or_else(|| "its status is not written yet".to_owned()),
    })
}

/// The answer for a pod.
pub fn config(
    coordinator: &SpiderCoordinator,
    pod: &Pod,
    node_addresses: Vec<IpAddr>,
) -> Result<CoordinatorConfig, CoordinatorError> {
    check_ready(coordinator)?;
    let spec = &coordinator.spec;
    let status = coordinator.status.as_ref();
    // An annotation that is present wins, also an empty one.
    let default_route_nic = pod.annotations.get(DEFAULT_ROUTE_NIC).or(spec.pod_default_route_nic.as_ref());
    Ok(CoordinatorConfig {
        mode: spec.mode.as_str().to_owned(),
        overlay_pod_cidr: status.map(|status| status.overlay_pod_cidr.clone()).unwrap_or_default(),
        service_cidr: status.map(|status| status.service_cidr.clone()).unwrap_or_default(),
        tune_pod_routes: Some(spec.tune_pod_routes),
        hijack_cidr: spec.hijack_cidr.clone(),
        policy_routes: spec
            .policy_routes
            .iter()
            .map(|route| PolicyRoute { dst: route.dst.clone(), gw: route.gw.clone() })
            .collect(),
        pod_mac_prefix: spec.pod_mac_prefix.clone().unwrap_or_default(),
        pod_default_route_nic: default_route_nic.cloned().unwrap_or_default(),
        host_rule_table: spec.host_rule_table,
        pod_rp_filter: spec.pod_rp_filter,
        tx_queue_len: spec.tx_queue_len,
        veth_link_address: spec.veth_link_address.clone().unwrap_or_default(),
        veth_mtu: spec.veth_mtu.unwrap_or_default(),
        dataplane: spec.dataplane.as_str().to_owned(),
        route_hints: spec.ebpf.route_hints.as_str().to_owned(),
        node_addresses,
        expected_nics: expected_nics(pod),
    })
}

/// The NICs that Multus makes, so that the plugin tells a NIC that comes later from one that never comes.
fn expected_nics(pod: &Pod) -> Option<Vec<IfName>> {
    let text = pod.annotations.get(NETWORKS).map_or("", String::as_str);
    let nics = multus::interfaces(text);
    nics.inspect_err(|error| warn!(namespace = pod.namespace, pod = pod.name, %error, "annotation k8s.v1.cni.cncf.io/networks is invalid"))
        .ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn coordinator(spec: &serde_json::Value, status: &serde_json::Value) -> SpiderCoordinator {
        serde_json::from_value(json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderCoordinator",
            "metadata": {"name": "default"}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn pod(annotations: &[(&str, &str)]) -> Pod {
        let annotations =
            annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Pod { annotations, ..Pod::default() }
    }

    /// Upstream empties the overlay CIDRs instead, and its answer is then refused by the plugin.
    #[test]
    fn unknown_service_cidrs_do_not_cost_the_overlay_cidrs() {
        let coordinator =
            coordinator(&json!({}), &json!({"phase": "Synced", "overlayPodCIDR": ["10.244.0.0/16"]}));
        let config = config(&coordinator, &pod(&[]), vec![]).unwrap();
        assert_eq!(config.overlay_pod_cidr, ["10.244.0.0/16"]);
        assert!(config.service_cidr.is_empty());
    }

    /// Upstream crashes on objects that were stored before these fields existed.
    #[test]
    fn fields_that_an_old_object_lacks_have_their_defaults() {
        let config =
            config(&coordinator(&json!({}), &json!({"phase": "Synced"})), &pod(&[]), vec![]).unwrap();
        assert_eq!((config.host_rule_table, config.pod_rp_filter, config.tx_queue_len), (500, 0, 0));
        assert_eq!((config.dataplane.as_str(), config.route_hints.as_str()), ("ebpf", "auto"));
        assert_eq!(config.tune_pod_routes, Some(true));
    }

    #[test]
    fn the_pods_annotation_wins_even_when_empty() {
        let coordinator = coordinator(&json!({"podDefaultRouteNIC": "net1"}), &json!({"phase": "Synced"}));
        let nic = |pod: &Pod| config(&coordinator, pod, vec![]).unwrap().pod_default_route_nic;
        assert_eq!(nic(&pod(&[])), "net1");
        assert_eq!(nic(&pod(&[(DEFAULT_ROUTE_NIC, "eth0")])), "eth0");
        assert_eq!(nic(&pod(&[(DEFAULT_ROUTE_NIC, "")])), "");
    }

    #[test]
    fn the_plugin_is_told_which_nics_will_come() {
        let coordinator = coordinator(&json!({}), &json!({"phase": "Synced"}));
        let nics = |pod: &Pod| {
            let nics = config(&coordinator, pod, vec![]).unwrap().expected_nics;
            nics.map(|nics| nics.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(nics(&pod(&[])), Some(vec![]));
        assert_eq!(nics(&pod(&[(NETWORKS, "a, kube-system/b@data0")])).unwrap(), ["net1", "data0"]);
        assert_eq!(nics(&pod(&[(NETWORKS, "[{")])), None);
    }

    #[test]
    fn not_ready_says_why() {
        let text =
            |status| config(&coordinator(&json!({}), &status), &pod(&[]), vec![]).unwrap_err().to_string();
        let status = json!({"phase": "NotReady", "reason": "no CIDR found"});
        assert_eq!(text(status), "spidercoordinator: default no ready: no CIDR found");
        assert!(text(json!(null)).contains("default no ready"));
    }
}
