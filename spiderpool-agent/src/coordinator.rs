//! The answer to the coordinator plugin: SpiderCoordinator's spec and status, after the pod's annotations.

use std::collections::BTreeMap;
use std::net::IpAddr;

use spiderpool_api::agent::coordinator::CoordinatorConfig;
use spiderpool_api::annotations::DEFAULT_ROUTE_NIC;
use spiderpool_api::crd::{CoordinatorPhase, SpiderCoordinator};
use spiderpool_core::coordinator::{Dataplane, Settings};
use spiderpool_core::ipam::annotations::key::MULTUS_NETWORKS as NETWORKS;
use spiderpool_core::ipam::multus;
use spiderpool_core::names::IfName;
use thiserror::Error;
use tracing::warn;

use crate::fallback::Fallback;
use crate::watches::Pod;

/// Why no pod can be set up now.
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

/// Fails unless the status is synced.
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
    // An object that was stored before a field existed lacks it.
    let mut settings = coordinator.spec.settings.clone().or(Settings::defaults());
    // Upstream's plugin refuses an answer without these, also where they are empty.
    let status = coordinator.status.as_ref();
    settings.overlay_pod_cidr =
        Some(status.map(|status| status.overlay_pod_cidr.clone()).unwrap_or_default());
    settings.service_cidr = Some(status.map(|status| status.service_cidr.clone()).unwrap_or_default());
    // The annotation wins where it is present, also with an empty value.
    if let Some(nic) = pod.annotations.get(DEFAULT_ROUTE_NIC) {
        settings.pod_default_route_nic = Some(nic.clone());
    }
    // Which NIC is the first is said by the network's configuration alone.
    settings.pod_default_cni_nic = None;
    Ok(CoordinatorConfig {
        settings,
        node_addresses,
        expected_nics: expected_nics(pod),
        address_pools: BTreeMap::new(),
    })
}

/// The cluster's dataplane, which an object that was stored before the field existed lacks. The plugin says what is wrong
/// with one that does not parse.
pub fn wanted_dataplane(settings: &Settings) -> Dataplane {
    settings.dataplane.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The plugin is told the dataplane that the node can do.
pub fn fall_back(settings: &mut Settings, fallback: &Fallback) {
    let wanted = wanted_dataplane(settings);
    let given = fallback.dataplane(wanted);
    if given != wanted {
        settings.dataplane = Some(given.to_string());
    }
}

/// The NICs that Multus makes, by which the plugin knows a NIC that comes later from one that never comes.
fn expected_nics(pod: &Pod) -> Option<Vec<IfName>> {
    let text = pod.annotations.get(NETWORKS).map_or("", String::as_str);
    let nics = multus::interfaces(text);
    nics.inspect_err(
        |error| warn!(pod = %pod.identity, %error, "annotation k8s.v1.cni.cncf.io/networks is invalid"),
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_api::pod::PodObject;

    use super::*;

    fn coordinator(spec: &serde_json::Value, status: &serde_json::Value) -> SpiderCoordinator {
        serde_json::from_value(json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderCoordinator",
            "metadata": {"name": "default"}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn pod(annotations: &[(&str, &str)]) -> Pod {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let metadata = json!({"namespace": "n", "name": "p", "uid": "u", "annotations": annotations});
        let object = serde_json::from_value::<PodObject>(json!({"metadata": metadata})).unwrap();
        Pod::try_from(object).unwrap()
    }

    /// Upstream empties the overlay CIDRs instead, and its answer is then refused by the plugin.
    #[test]
    fn unknown_service_cidrs_do_not_cost_the_overlay_cidrs() {
        let coordinator =
            coordinator(&json!({}), &json!({"phase": "Synced", "overlayPodCIDR": ["10.244.0.0/16"]}));
        let config = config(&coordinator, &pod(&[]), vec![]).unwrap();
        assert_eq!(config.settings.overlay_pod_cidr, Some(vec!["10.244.0.0/16".to_owned()]));
        assert_eq!(config.settings.service_cidr, Some(vec![]));
    }

    /// Upstream crashes on objects that were stored before these fields existed.
    #[test]
    fn fields_that_an_old_object_lacks_have_their_defaults() {
        let config =
            config(&coordinator(&json!({}), &json!({"phase": "Synced"})), &pod(&[]), vec![]).unwrap();
        let answer = json!({
            "mode": "auto", "overlayPodCIDR": [], "serviceCIDR": [], "tunePodRoutes": true, "vethMTU": 1500,
            "hostRuleTable": 500, "podRPFilter": 0, "txQueueLen": 0, "dataplane": "ebpf",
            "ebpf": {"routeHints": "auto", "nodeLink": "all"}, "nodeAddresses": [], "expectedNics": [],
        });
        assert_eq!(serde_json::to_value(config).unwrap(), answer);
    }

    #[test]
    fn the_pods_annotation_wins_even_when_empty() {
        let coordinator = coordinator(&json!({"podDefaultRouteNIC": "net1"}), &json!({"phase": "Synced"}));
        let nic =
            |pod: &Pod| config(&coordinator, pod, vec![]).unwrap().settings.pod_default_route_nic.unwrap();
        assert_eq!(nic(&pod(&[])), "net1");
        assert_eq!(nic(&pod(&[(DEFAULT_ROUTE_NIC, "eth0")])), "eth0");
        assert_eq!(nic(&pod(&[(DEFAULT_ROUTE_NIC, "")])), "");
    }

    #[test]
    fn the_answer_names_the_nics_that_will_come() {
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
