//! The desired status, from what is known of the cluster.

use ipnet::IpNet;
use spiderpool_api::crd::{CoordinatorPhase, PodCidrType, SpiderCoordinatorStatus};
use spiderpool_core::Unsupported;

use super::kubeadm::{Kubeadm, KubeadmError};
use super::problem::{KubeadmProblem, StatusProblem};

/// What is known of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// CIDRs of the ServiceCIDR objects; `None` where the API server has no such kind.
    pub(super) service_cidrs: Option<Vec<String>>,
    /// kubeadm's configuration; `None` where there is none.
    pub(super) kubeadm: Option<Result<Kubeadm, KubeadmError>>,
}

/// The desired status, and the problems of which its reason is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatusPlan {
    pub(super) status: SpiderCoordinatorStatus,
    /// What keeps pods from starting comes first.
    pub(super) problems: Vec<StatusProblem>,
}

/// The status. An absent type means the CRD's default, none.
pub(super) fn plan(kind: Option<PodCidrType>, sources: &Sources) -> StatusPlan {
    let mut problems = Vec::new();
    let (phase, overlay_pod_cidr) = match pods(kind.unwrap_or(PodCidrType::None), sources) {
        Ok(pods) => (CoordinatorPhase::Synced, texts(&pods)),
        Err(problem) => {
            problems.push(problem);
            (CoordinatorPhase::NotReady, Vec::new())
        }
    };
    // The cluster's CNI may still reach Services: no reason to keep pods from starting.
    let service_cidr = services(sources).unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let reason = (!texts.is_empty()).then(|| texts.join("; "));
    StatusPlan { status: SpiderCoordinatorStatus { phase, reason, overlay_pod_cidr, service_cidr }, problems }
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

fn pods(kind: PodCidrType, sources: &Sources) -> Result<Vec<IpNet>, StatusProblem> {
    match kind {
        PodCidrType::None => Ok(Vec::new()),
        PodCidrType::Cluster => pods_by_kubeadm(sources).map_err(StatusProblem::PodCidrsUnknown),
        PodCidrType::Auto => Err(Unsupported::PodCidrTypeAuto.into()),
        PodCidrType::Calico => Err(Unsupported::PodCidrTypeCalico.into()),
        PodCidrType::Cilium => Err(Unsupported::PodCidrTypeCilium.into()),
    }
}

fn pods_by_kubeadm(sources: &Sources) -> Result<Vec<IpNet>, KubeadmProblem> {
    match &sources.kubeadm {
        Some(Ok(kubeadm)) if !kubeadm.pods.is_empty() => Ok(kubeadm.pods.clone()),
        Some(Ok(_)) => Err(KubeadmProblem::NoPodSubnet),
        Some(Err(error)) => Err(error.clone().into()),
        None => Err(KubeadmProblem::Absent),
    }
}

fn services(sources: &Sources) -> Result<Vec<String>, StatusProblem> {
    if let Some(cidrs) = sources.service_cidrs.as_ref().filter(|cidrs| !cidrs.is_empty()) {
        return Ok(cidrs.clone());
    }
    match &sources.kubeadm {
        Some(Ok(kubeadm)) if !kubeadm.services.is_empty() => Ok(texts(&kubeadm.services)),
        _ => Err(StatusProblem::ServiceCidrsUnknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(services: &[&str], kubeadm: Option<&str>) -> Sources {
        let service_cidrs = services.iter().map(|cidr| (*cidr).to_owned()).collect();
        Sources { service_cidrs: Some(service_cidrs), kubeadm: kubeadm.map(super::super::kubeadm::parse) }
    }

    const KUBEADM: &str = "networking: {podSubnet: '10.244.0.0/16,fd44::/48', serviceSubnet: 10.97.0.0/16}";

    /// Upstream wants kubeadm's configuration or a kube-controller-manager pod for this, too.
    #[test]
    fn type_none_needs_no_kubeadm_configuration() {
        for kind in [None, Some(PodCidrType::None)] {
            let status = plan(kind, &sources(&["10.96.0.0/16", "fd96::/112"], None)).status;
            assert_eq!((status.phase, status.reason), (CoordinatorPhase::Synced, None));
            assert!(status.overlay_pod_cidr.is_empty());
            assert_eq!(status.service_cidr, ["10.96.0.0/16", "fd96::/112"]);
        }
    }

    #[test]
    fn cluster_reads_kubeadms_configuration() {
        let status = plan(Some(PodCidrType::Cluster), &sources(&["10.96.0.0/16"], Some(KUBEADM))).status;
        assert_eq!(status.phase, CoordinatorPhase::Synced);
        assert_eq!(status.overlay_pod_cidr, ["10.244.0.0/16", "fd44::/48"]);
        assert_eq!(status.service_cidr, ["10.96.0.0/16"], "the objects come first");
        assert_eq!(plan(None, &sources(&[], Some(KUBEADM))).status.service_cidr, ["10.97.0.0/16"]);
    }

    #[test]
    fn a_status_that_is_not_ready_names_problem_and_remedy() {
        let reason = |kind, sources: &Sources| {
            let StatusPlan { status, problems } = plan(Some(kind), sources);
            assert_eq!(status.phase, CoordinatorPhase::NotReady);
            assert_eq!(problems[0].reason(), "ClusterNotReady");
            status.reason.unwrap()
        };
        let some = sources(&["10.96.0.0/16"], None);
        for (kind, name) in
            [(PodCidrType::Auto, "auto"), (PodCidrType::Calico, "calico"), (PodCidrType::Cilium, "cilium")]
        {
            let reason = reason(kind, &some);
            assert!(reason.contains(name) && reason.contains("not supported yet"), "{reason}");
        }
        assert!(reason(PodCidrType::Cluster, &some).contains("does not exist"));
        let empty = sources(&["10.96.0.0/16"], Some("networking: {}"));
        assert!(reason(PodCidrType::Cluster, &empty).contains("podSubnet"));
        let broken = sources(&["10.96.0.0/16"], Some("networking: {podSubnet: x}"));
        assert!(reason(PodCidrType::Cluster, &broken).contains("not a CIDR"));
    }

    #[test]
    fn unknown_service_cidrs_are_reported_but_keep_no_pod_from_starting() {
        let StatusPlan { status, problems } = plan(Some(PodCidrType::None), &sources(&[], None));
        assert_eq!(problems[0].reason(), "ServiceCIDRUnknown");
        assert_eq!(status.phase, CoordinatorPhase::Synced);
        assert!(status.reason.unwrap().contains("Service CIDRs are unknown"));
    }
}
