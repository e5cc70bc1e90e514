//! What stays of the status before where something is missing or cannot be read.

use serde_json::{Value, json};
use spiderpool_api::crd::SpiderCoordinator;

use super::*;

/// Of a coordinator with this spec and status.
fn before(spec: &Value, status: &Value) -> Before {
    let object = json!({"metadata": {"name": "default"}, "spec": spec, "status": status});
    Before::from(&serde_json::from_value::<SpiderCoordinator>(object).unwrap())
}

/// That a network cannot be seen does not mean that it is not there: the cluster's CIDRs may be another network's.
#[test]
fn what_auto_cannot_read_is_no_choice_for_another_network() {
    let refused = || Read::Failed("ippools is forbidden".to_owned());
    let sources = Sources { calico: refused(), ..with_kubeadm(KUBEADM) };
    let desired = plan_anew(PodCidrType::Auto, &sources);
    assert!(desired.is_unread() && !plan_anew(PodCidrType::Auto, &Sources::default()).is_unread());
    let StatusPlan { status, problems, .. } = desired;
    assert_eq!((status.phase, problems[0].reason()), (CoordinatorPhase::NotReady, "CNINotReadable"));
    assert_eq!(status.overlay_pod_cidr, [""; 0]);
    assert_eq!(status.reason.unwrap(), "podCIDRType auto cannot read Calico's IPPools: ippools is forbidden");

    let known = json!({"phase": "Synced", "overlayPodCIDR": ["10.1.0.0/16"], "serviceCIDR": []});
    for kind in [PodCidrType::Auto, PodCidrType::Calico] {
        let status = plan(kind, &sources, &before(&json!({}), &known)).status;
        assert_eq!((status.phase, &status.overlay_pod_cidr[..]), synced_with(&["10.1.0.0/16".to_owned()]));
        let reason = status.reason.unwrap();
        assert!(
            reason.ends_with("ippools is forbidden; the CIDRs that were known before are kept"),
            "{reason}"
        );
    }
    // Auto went without: it may go on without.
    let without = json!({"phase": "Synced"});
    let status = plan(PodCidrType::Auto, &sources, &before(&json!({}), &without)).status;
    assert_eq!((status.phase, &status.overlay_pod_cidr[..]), synced_with(&[]));
    let status = plan(PodCidrType::Calico, &sources, &before(&json!({}), &without)).status;
    assert_eq!(status.phase, CoordinatorPhase::NotReady, "the status is of another type");
}

fn synced_with(cidrs: &[String]) -> (CoordinatorPhase, &[String]) {
    (CoordinatorPhase::Synced, cidrs)
}

/// Agents take the CIDRs of running pods out of the status in whatever phase, so a failure must not empty it.
#[test]
fn cidrs_that_are_known_stay_in_a_status_that_is_not_ready() {
    let known =
        json!({"phase": "NotReady", "overlayPodCIDR": ["10.1.0.0/16"], "serviceCIDR": ["10.97.0.0/16"]});
    let known = before(&json!({}), &known);
    for kind in [PodCidrType::Calico, PodCidrType::Cilium, PodCidrType::Cluster, PodCidrType::Auto] {
        let status = plan(kind, &Sources::default(), &known).status;
        assert_eq!(status.phase, CoordinatorPhase::NotReady);
        assert_eq!(
            (&status.overlay_pod_cidr[..], &status.service_cidr[..]),
            (&["10.1.0.0/16".to_owned()][..], &["10.97.0.0/16".to_owned()][..],)
        );
        assert!(status.reason.unwrap().ends_with("the CIDRs that were known before are kept"), "{kind:?}");
    }
    // What is found is all there is.
    let status = plan(PodCidrType::Cluster, &with_kubeadm(KUBEADM), &known).status;
    assert_eq!(status.overlay_pod_cidr, ["10.244.0.0/16", "fd44::/48"]);
    assert_eq!(
        (status.service_cidr, status.reason),
        (vec!["10.96.0.0/16".to_owned(), "fd96::/112".to_owned()], None)
    );
}

/// An earlier place that cannot be read may name more.
#[test]
fn what_comes_from_a_later_place_does_not_replace_what_was_known() {
    let known =
        json!({"phase": "Synced", "overlayPodCIDR": ["10.244.0.0/16"], "serviceCIDR": ["10.96.0.0/16"]});
    let nodes = vec!["10.244.1.0/24".parse().unwrap()];
    let refused = Read::Failed("forbidden".to_owned());
    let mut sources = Sources { nodes, service_cidrs: refused.clone(), ..with_kubeadm(KUBEADM) };
    let StatusPlan { status, notes, .. } = plan(PodCidrType::Cluster, &sources, &before(&json!({}), &known));
    assert_eq!(
        (status.phase, status.service_cidr),
        (CoordinatorPhase::Synced, vec!["10.96.0.0/16".into(), "10.97.0.0/16".into()])
    );
    assert_eq!(notes[0].to_string(), "a ServiceCIDR object cannot be read: forbidden");
    sources.kubeadm = Read::Failed("kubeadm-config is forbidden".to_owned());
    let Read::Found(pods) = cidrs(&["10.245.0.0/16"]) else { unreachable!() };
    sources.control_plane =
        Read::Found(control_plane::ControlPlane { pods, ..control_plane::ControlPlane::default() });
    let status = plan(PodCidrType::Cluster, &sources, &before(&json!({}), &known)).status;
    assert_eq!(status.overlay_pod_cidr, ["10.244.0.0/16", "10.245.0.0/16"]);
}

/// While a cluster moves from one network to the other, each counts for itself.
#[test]
fn one_network_of_two_that_has_no_cidrs_does_not_cost_those_of_the_other() {
    let cilium = cilium_config(&[("ipam", "eni")]);
    let sources = Sources { calico: cidrs(&["10.1.0.0/16"]), cilium, ..services_only() };
    let StatusPlan { status, problems, .. } = plan_anew(PodCidrType::Auto, &sources);
    assert_eq!((status.phase, &status.overlay_pod_cidr[..]), synced_with(&["10.1.0.0/16".to_owned()]));
    assert_eq!(problems[0].reason(), "CiliumNotReady");
    assert!(status.reason.unwrap().contains("mode eni is not supported"));
}

/// Pods whose type was `none`, or whose CIDRs somebody lists, start as before when the type becomes auto.
#[test]
fn auto_that_finds_nothing_stops_no_pod_that_started_before() {
    let of = |spec: Value, status: Value| {
        let StatusPlan { status, .. } = plan(PodCidrType::Auto, &services_only(), &before(&spec, &status));
        assert!(status.reason.unwrap().contains("the cluster's pod CIDRs are unknown"));
        status.phase
    };
    let charts = json!({"hijackCIDR": ["169.254.0.0/16", "169.254.1.1", "fe80::/10"]});
    let listed = json!({"hijackCIDR": ["169.254.0.0/16", "10.42.0.0/16"]});
    let known = json!({"phase": "Synced", "overlayPodCIDR": ["10.244.0.0/16"]});
    assert_eq!(of(charts.clone(), json!({"phase": "Synced"})), CoordinatorPhase::Synced);
    assert_eq!(of(listed, json!(null)), CoordinatorPhase::Synced);
    assert_eq!(of(charts.clone(), json!(null)), CoordinatorPhase::NotReady, "a new installation");
    assert_eq!(of(charts, known), CoordinatorPhase::NotReady, "they were known");
}
