//! What the status should say, from what the cluster says.

use ipnet::IpNet;
use spiderpool_api::crd::{CoordinatorPhase, PodCidrType, SpiderCoordinatorStatus};
use spiderpool_core::Unsupported;

use super::kubeadm::{Kubeadm, KubeadmError};

/// What is known of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// CIDRs of the ServiceCIDR objects; `None` where the API server has no such kind.
    pub(super) service_cidrs: Option<Vec<String>>,
    /// What kubeadm has left, if it has.
    pub(super) kubeadm: Option<Result<Kubeadm, KubeadmErrorText>>,
}

/// The text of a [`KubeadmError`].
pub(super) type KubeadmErrorText = String;

impl Sources {
    /// Takes in kubeadm's text.
    pub(super) fn with_kubeadm(self, parsed: Option<Result<Kubeadm, KubeadmError>>) -> Self {
        Self { kubeadm: parsed.map(|parsed| parsed.map_err(|error| error.to_string())), ..self }
    }
}

const CONFIG_MAP: &str = "ConfigMap kube-system/kubeadm-config";
const REMEDY: &str = "set spec.podCIDRType to none and list the pod CIDRs in spec.hijackCIDR";

/// The status. A type that is not set means the definition's default, none.
pub(super) fn plan(kind: Option<PodCidrType>, sources: &Sources) -> SpiderCoordinatorStatus {
    let services = services(sources);
    let pods = pods(kind.unwrap_or(PodCidrType::None), sources);
    let (phase, overlay_pod_cidr, mut reasons) = match pods {
        Ok(pods) => (CoordinatorPhase::Synced, texts(&pods), Vec::new()),
        Err(reason) => (CoordinatorPhase::NotReady, Vec::new(), vec![reason]),
    };
    // Services may still be reached by the cluster's CNI: no reason to keep pods from starting.
    let service_cidr = services.unwrap_or_else(|reason| {
        reasons.push(reason);
        Vec::new()
    });
    let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
    SpiderCoordinatorStatus { phase, reason, overlay_pod_cidr, service_cidr }
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

fn pods(kind: PodCidrType, sources: &Sources) -> Result<Vec<IpNet>, String> {
    let unsupported = |feature: Unsupported| Err(feature.to_string());
    match kind {
        PodCidrType::None => Ok(Vec::new()),
        PodCidrType::Cluster => cluster(sources),
        PodCidrType::Auto => unsupported(Unsupported::PodCidrTypeAuto),
        PodCidrType::Calico => unsupported(Unsupported::PodCidrTypeCalico),
        PodCidrType::Cilium => unsupported(Unsupported::PodCidrTypeCilium),
    }
}

fn cluster(sources: &Sources) -> Result<Vec<IpNet>, String> {
    let lacks = |what: &str| Err(format!("podCIDRType cluster: {CONFIG_MAP} {what}: {REMEDY}"));
    match &sources.kubeadm {
        Some(Ok(kubeadm)) if !kubeadm.pods.is_empty() => Ok(kubeadm.pods.clone()),
        Some(Ok(_)) => lacks("names no networking.podSubnet"),
        Some(Err(error)) => lacks(&format!("cannot be used, {error}")),
        None => lacks("does not exist"),
    }
}

/// Or why they are not known.
fn services(sources: &Sources) -> Result<Vec<String>, String> {
    if let Some(cidrs) = sources.service_cidrs.as_ref().filter(|cidrs| !cidrs.is_empty()) {
        return Ok(cidrs.clone());
    }
    match &sources.kubeadm {
        Some(Ok(kubeadm)) if !kubeadm.services.is_empty() => Ok(texts(&kubeadm.services)),
        _ => Err(format!(
            "the Service CIDRs are unknown: there is no ServiceCIDR object and {CONFIG_MAP} names none; list them in spec.hijackCIDR"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(services: &[&str], kubeadm: Option<&str>) -> Sources {
        let service_cidrs = services.iter().map(|cidr| (*cidr).to_owned()).collect();
        Sources { service_cidrs: Some(service_cidrs), kubeadm: None }
            .with_kubeadm(kubeadm.map(super::super::kubeadm::parse))
    }

    const KUBEADM: &str = "networking: {podSubnet: '10.244.0.0/16,fd44::/48', serviceSubnet: 10.97.0.0/16}";

    /// Upstream wants kubeadm's configuration or a kube-controller-manager pod for this, too.
    #[test]
    fn none_needs_nothing_of_the_cluster() {
        for kind in [None, Some(PodCidrType::None)] {
            let status = plan(kind, &sources(&["10.96.0.0/16", "fd96::/112"], None));
            assert_eq!((status.phase, status.reason), (CoordinatorPhase::Synced, None));
            assert!(status.overlay_pod_cidr.is_empty());
            assert_eq!(status.service_cidr, ["10.96.0.0/16", "fd96::/112"]);
        }
    }

    #[test]
    fn cluster_is_what_kubeadm_says() {
        let status = plan(Some(PodCidrType::Cluster), &sources(&["10.96.0.0/16"], Some(KUBEADM)));
        assert_eq!(status.phase, CoordinatorPhase::Synced);
        assert_eq!(status.overlay_pod_cidr, ["10.244.0.0/16", "fd44::/48"]);
        assert_eq!(status.service_cidr, ["10.96.0.0/16"], "the objects come first");
        assert_eq!(plan(None, &sources(&[], Some(KUBEADM))).service_cidr, ["10.97.0.0/16"]);
    }

    #[test]
    fn a_status_that_is_not_ready_says_what_is_missing_and_what_to_do() {
        let reason = |kind, sources: &Sources| {
            let status = plan(Some(kind), sources);
            assert_eq!(status.phase, CoordinatorPhase::NotReady);
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
    fn unknown_service_cidrs_are_said_but_keep_no_pod_from_starting() {
        let status = plan(Some(PodCidrType::None), &sources(&[], None));
        assert_eq!(status.phase, CoordinatorPhase::Synced);
        assert!(status.reason.unwrap().contains("Service CIDRs are unknown"));
    }
}
