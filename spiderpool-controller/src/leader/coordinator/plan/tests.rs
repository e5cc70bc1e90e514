mod kept;

use super::super::outcome::Read;
use super::super::sources::{Agents, calico, cilium, cni_config, control_plane, kubeadm};
use super::*;

/// Of a coordinator without a status.
fn plan_anew(kind: PodCidrType, sources: &Sources) -> StatusPlan {
    plan(kind, sources, &Before::default())
}

fn cidrs(texts: &[&str]) -> Read<Cidrs> {
    let mut cidrs = Cidrs::default();
    for text in texts {
        cidrs.add("O", "f", text);
    }
    Read::Found(cidrs)
}

/// A cluster with ServiceCIDR objects and nothing else.
fn services_only() -> Sources {
    let service_cidrs = cidrs(&["10.96.0.0/16", "fd96::/112"]);
    Sources { service_cidrs, cilium_config_map: "kube-system/cilium-config".to_owned(), ..Sources::default() }
}

const KUBEADM: &str = "networking: {podSubnet: '10.244.0.0/16,fd44::/48', serviceSubnet: 10.97.0.0/16}";

fn with_kubeadm(text: &str) -> Sources {
    Sources { kubeadm: kubeadm::parse(text), ..services_only() }
}

fn cilium_config(data: &[(&str, &str)]) -> Read<cilium::CiliumConfig> {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Read::Found(cilium::parse("ConfigMap kube-system/cilium-config", &data))
}

#[track_caller]
fn synced(kind: PodCidrType, sources: &Sources) -> Vec<String> {
    let StatusPlan { status, problems, notes } = plan_anew(kind, sources);
    assert_eq!((status.phase, &status.reason), (CoordinatorPhase::Synced, &None), "{problems:?} {notes:?}");
    status.overlay_pod_cidr
}

/// The reason of the Event and that of the status.
#[track_caller]
fn not_ready(kind: PodCidrType, sources: &Sources) -> (&'static str, String) {
    let StatusPlan { status, problems, .. } = plan_anew(kind, sources);
    assert_eq!((status.phase, &status.overlay_pod_cidr[..]), (CoordinatorPhase::NotReady, &[][..]));
    assert_eq!(status.service_cidr, ["10.96.0.0/16", "fd96::/112"], "what is known stays");
    (problems[0].reason(), status.reason.unwrap())
}

/// Upstream wants kubeadm's configuration or a kube-controller-manager pod for every type.
#[test]
fn no_type_needs_the_sources_of_another() {
    assert_eq!(synced(PodCidrType::None, &services_only()), [""; 0]);
    let calico = Sources { calico: cidrs(&["10.1.0.0/16"]), ..services_only() };
    assert_eq!(synced(PodCidrType::Calico, &calico), ["10.1.0.0/16"]);
    let pool = cilium_config(&[("ipam", "cluster-pool"), ("cluster-pool-ipv4-cidr", "10.0.0.0/8")]);
    // Without the definition of CiliumPodIPPool, which upstream wants for every mode of Cilium.
    assert_eq!(synced(PodCidrType::Cilium, &Sources { cilium: pool, ..services_only() }), ["10.0.0.0/8"]);
    assert_eq!(synced(PodCidrType::Cluster, &with_kubeadm(KUBEADM)), ["10.244.0.0/16", "fd44::/48"]);
}

/// k3s and managed clusters have neither kubeadm's ConfigMap nor pods of the control plane.
#[test]
fn cluster_takes_kubeadm_then_arguments_then_nodes() {
    let nodes = vec!["10.42.0.0/23".parse().unwrap()];
    let mut sources = Sources { nodes, ..services_only() };
    assert_eq!(synced(PodCidrType::Cluster, &sources), ["10.42.0.0/23"]);
    let Read::Found(pods) = cidrs(&["10.43.0.0/16"]) else { unreachable!() };
    sources.control_plane =
        Read::Found(control_plane::ControlPlane { pods, ..control_plane::ControlPlane::default() });
    assert_eq!(synced(PodCidrType::Cluster, &sources), ["10.43.0.0/16"]);
    sources.kubeadm = kubeadm::parse("networking: {dnsDomain: a}");
    assert_eq!(synced(PodCidrType::Cluster, &sources), ["10.43.0.0/16"]);
    sources.kubeadm = kubeadm::parse(KUBEADM);
    assert_eq!(synced(PodCidrType::Cluster, &sources), ["10.244.0.0/16", "fd44::/48"]);
    assert_eq!(synced(PodCidrType::Auto, &sources), ["10.244.0.0/16", "fd44::/48"], "nothing else is there");
}

#[test]
fn a_status_that_is_not_ready_says_what_was_looked_for_and_what_to_do() {
    let (event, reason) = not_ready(PodCidrType::Cluster, &services_only());
    assert_eq!(event, "ClusterNotReady");
    assert_eq!(
        reason,
        "the cluster's pod CIDRs are unknown: ConfigMap kube-system/kubeadm-config does not exist, a \
         kube-controller-manager pod in kube-system does not exist, no Node has spec.podCIDRs; set spec.podCIDRType to \
         none and list the pod CIDRs in spec.hijackCIDR"
    );
    let (_, reason) = not_ready(PodCidrType::Cluster, &with_kubeadm("networking: {}"));
    assert!(reason.contains("kubeadm-config has no networking.podSubnet"), "{reason}");
    let (_, reason) = not_ready(PodCidrType::Cluster, &with_kubeadm("networking: [1]"));
    assert!(reason.contains("ClusterConfiguration is not readable"), "{reason}");
    let (event, reason) = not_ready(PodCidrType::Calico, &services_only());
    assert!(event == "CalicoNotReady" && reason.contains("the API server knows no IPPool"), "{reason}");
    let (_, reason) = not_ready(PodCidrType::Calico, &Sources { calico: cidrs(&[]), ..services_only() });
    assert!(reason.contains("there is no IPPool") && reason.contains("create an IPPool"), "{reason}");
    let refused = Read::Failed("ippools is forbidden".to_owned());
    let (_, reason) = not_ready(PodCidrType::Calico, &Sources { calico: refused, ..services_only() });
    assert!(reason.contains("its IPPools cannot be read: ippools is forbidden"), "{reason}");
    let (_, reason) = not_ready(PodCidrType::Calico, &Sources { calico: cidrs(&["x"]), ..services_only() });
    assert!(reason.contains("Invalid value: \"x\""), "{reason}");
}

#[test]
fn every_mode_of_cilium() {
    let mut sources = Sources { cilium_pools: cidrs(&["10.10.0.0/16"]), ..with_kubeadm(KUBEADM) };
    sources.cilium = cilium_config(&[("ipam", "multi-pool")]);
    assert_eq!(synced(PodCidrType::Cilium, &sources), ["10.10.0.0/16"]);
    assert_eq!(synced(PodCidrType::Auto, &sources), ["10.10.0.0/16"]);
    sources.cilium = cilium_config(&[("ipam", "kubernetes")]);
    assert_eq!(synced(PodCidrType::Cilium, &sources), ["10.244.0.0/16", "fd44::/48"]);
    let mut check = |config: Option<&[(&str, &str)]>, part: &str| {
        sources.cilium = config.map_or(Read::Absent, cilium_config);
        sources.cilium_pools = Read::Absent;
        let (event, reason) = not_ready(PodCidrType::Cilium, &sources);
        assert!(event == "CiliumNotReady" && reason.contains(part), "{reason}");
        reason
    };
    let absent = check(None, "ConfigMap kube-system/cilium-config does not exist");
    assert!(absent.contains("global.ciliumConfigMap"), "{absent}");
    check(Some(&[("enable-ipv4", "true")]), "cilium-config has no CIDR in cluster-pool-ipv4-cidr");
    check(Some(&[("cluster-pool-ipv4-cidr", "ten")]), "Invalid value: \"ten\"");
    check(Some(&[("ipam", "multi-pool")]), "no CiliumPodIPPool");
    for mode in ["eni", "azure", "alibabacloud", "crd", "delegated-plugin"] {
        let reason = check(Some(&[("ipam", mode)]), &format!("ipam mode {mode} is not supported"));
        assert!(reason.contains("spec.hijackCIDR"), "{reason}");
    }
    check(Some(&[("cni-chaining-mode", "generic-veth")]), "cni-chaining-mode is generic-veth");
}

/// What is said of both networks, and their CIDRs while a cluster moves from one to the other.
#[test]
fn a_choice_of_auto_is_explained_in_the_reason() {
    let pool = |mode| cilium_config(&[("cni-chaining-mode", mode), ("cluster-pool-ipv4-cidr", "10.0.0.0/8")]);
    let mut sources = Sources { calico: cidrs(&["10.1.0.0/16"]), ..services_only() };
    sources.cilium = pool("generic-veth");
    let StatusPlan { status, notes, .. } = plan_anew(PodCidrType::Auto, &sources);
    assert_eq!(
        (status.phase, &status.overlay_pod_cidr[..]),
        (CoordinatorPhase::Synced, &["10.1.0.0/16".to_owned()][..])
    );
    assert_eq!(notes[0].reason(), "CNIDetected");
    assert_eq!(
        status.reason.unwrap(),
        "podCIDRType auto found Calico and Cilium: Calico is used: Cilium's cni-chaining-mode is generic-veth, so Calico \
         gives the addresses"
    );
    sources.cilium = pool("none");
    sources.agents = Read::Found(Agents { calico: true, cilium: true });
    let status = plan_anew(PodCidrType::Auto, &sources).status;
    assert_eq!(status.overlay_pod_cidr, ["10.1.0.0/16", "10.0.0.0/8"]);
}

/// A VPC has no pod CIDR that the cluster knows; pods need not wait for one.
#[test]
fn a_clouds_network_keeps_no_pod_from_starting() {
    let content = r#"{"name": "aws-cni", "plugins": [{"type": "aws-cni"}]}"#;
    let cni = Some(cni_config::parse("10-aws.conflist", Some(content)));
    let StatusPlan { status, notes, .. } = plan_anew(PodCidrType::Auto, &Sources { cni, ..services_only() });
    assert_eq!((status.phase, status.overlay_pod_cidr.len()), (CoordinatorPhase::Synced, 0));
    assert_eq!(notes[0].reason(), "PodCIDRUnknown");
    assert!(status.reason.unwrap().contains("spec.hijackCIDR"));
}

#[test]
fn service_cidrs_come_from_objects_then_kubeadm_then_arguments() {
    let mut sources = with_kubeadm(KUBEADM);
    let of = |sources: &Sources| plan_anew(PodCidrType::None, sources).status.service_cidr;
    assert_eq!(of(&sources), ["10.96.0.0/16", "fd96::/112"]);
    sources.service_cidrs = Read::Absent;
    assert_eq!(of(&sources), ["10.97.0.0/16"]);
    let Read::Found(services) = cidrs(&["10.43.0.0/16"]) else { unreachable!() };
    sources.control_plane =
        Read::Found(control_plane::ControlPlane { services, ..control_plane::ControlPlane::default() });
    sources.kubeadm = Read::Absent;
    assert_eq!(of(&sources), ["10.43.0.0/16"]);
}

#[test]
fn unknown_service_cidrs_are_reported_but_keep_no_pod_from_starting() {
    let StatusPlan { status, problems, .. } = plan_anew(PodCidrType::None, &Sources::default());
    assert_eq!(problems[0].reason(), "ServiceCIDRUnknown");
    assert_eq!(status.phase, CoordinatorPhase::Synced);
    let reason = status.reason.unwrap();
    assert!(reason.contains("Service CIDRs are unknown: a ServiceCIDR object does not exist"), "{reason}");
}

#[test]
fn invalid_entries_are_left_out_and_named() {
    let status =
        plan_anew(PodCidrType::Cluster, &with_kubeadm("networking: {podSubnet: '10.244.0.0/16,ten'}")).status;
    assert_eq!((status.phase, status.overlay_pod_cidr.len()), (CoordinatorPhase::Synced, 1));
    let reason = status.reason.unwrap();
    assert!(reason.contains("networking.podSubnet: Invalid value: \"ten\""), "{reason}");
    let pools = Sources { calico: cidrs(&["10.1.0.0/16", "10.1.0.0"]), ..services_only() };
    let StatusPlan { status, notes, .. } = plan_anew(PodCidrType::Calico, &pools);
    assert_eq!((status.overlay_pod_cidr.len(), notes[0].reason()), (1, "InvalidCIDR"));
}

/// The statuses that the quick starts of Calico and Cilium print.
#[test]
fn statuses_of_the_quick_starts() {
    let service_cidrs = || cidrs(&["10.233.0.0/18"]);
    let pools = "metadata: {name: default-ipv4-ippool}\nspec: {cidr: 10.233.64.0/18, ipipMode: Always}";
    let pool: calico::IpPool = serde_norway::from_str(pools).unwrap();
    let calico = Sources {
        service_cidrs: service_cidrs(),
        calico: Read::Found(calico::cidrs(vec![pool])),
        agents: Read::Found(Agents { calico: true, cilium: false }),
        ..Sources::default()
    };
    let cilium = Sources {
        service_cidrs: service_cidrs(),
        cilium: cilium_config(&[("ipam", "cluster-pool"), ("cluster-pool-ipv4-cidr", "10.233.64.0/18")]),
        agents: Read::Found(Agents { calico: false, cilium: true }),
        ..Sources::default()
    };
    for (kind, sources) in [(PodCidrType::Calico, &calico), (PodCidrType::Cilium, &cilium)] {
        for kind in [kind, PodCidrType::Auto] {
            let status = serde_json::to_value(plan_anew(kind, sources).status).unwrap();
            let expected = serde_json::json!({
                "overlayPodCIDR": ["10.233.64.0/18"], "phase": "Synced", "serviceCIDR": ["10.233.0.0/18"],
            });
            assert_eq!(status, expected, "{kind:?}");
        }
    }
}
