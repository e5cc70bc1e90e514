//! The desired status, from what is known of the cluster.

use spiderpool_api::crd::{CoordinatorPhase, PodCidrType, SpiderCoordinatorStatus};

use super::cidrs::Cidrs;
use super::detect::{Detected, Origin, detect};
use super::outcome::Read;
use super::problem::{CiliumProblem, Note, StatusProblem};
use super::sources::Sources;
use super::sources::cilium::Ipam;

/// The desired status, and what its reason is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatusPlan {
    pub(super) status: SpiderCoordinatorStatus,
    /// What keeps pods from starting comes first.
    pub(super) problems: Vec<StatusProblem>,
    pub(super) notes: Vec<Note>,
}

/// The type that counts; an absent one is auto.
pub(super) fn effective(kind: Option<PodCidrType>) -> PodCidrType {
    kind.unwrap_or(PodCidrType::Auto)
}

/// The status.
pub(super) fn plan(kind: PodCidrType, sources: &Sources) -> StatusPlan {
    let Detected { origins, note } = origins(kind, sources);
    let mut notes: Vec<Note> = note.into_iter().collect();
    if kind == PodCidrType::Auto {
        notes.extend(unread(sources));
    }
    let (mut pods, mut problems) = (Cidrs::default(), Vec::new());
    for origin in origins {
        match pods_of(origin, sources, &mut notes) {
            Ok(cidrs) => pods.extend(cidrs),
            Err(problem) => problems.push(problem),
        }
    }
    let (phase, overlay_pod_cidr) = if problems.is_empty() {
        (CoordinatorPhase::Synced, pods.texts())
    } else {
        (CoordinatorPhase::NotReady, Vec::new())
    };
    // The cluster's CNI may still reach Services: no reason to keep pods from starting.
    let services = services(sources, &mut notes).unwrap_or_else(|problem| {
        problems.push(problem);
        Cidrs::default()
    });
    notes.extend(pods.invalid.into_iter().map(Note::Invalid));
    let texts = problems.iter().map(ToString::to_string).chain(notes.iter().map(ToString::to_string));
    let reason = Some(texts.collect::<Vec<_>>().join("; ")).filter(|reason| !reason.is_empty());
    let service_cidr = services.texts();
    let status = SpiderCoordinatorStatus { phase, reason, overlay_pod_cidr, service_cidr };
    StatusPlan { status, problems, notes }
}

fn origins(kind: PodCidrType, sources: &Sources) -> Detected {
    let origins = match kind {
        PodCidrType::Auto => return detect(sources),
        PodCidrType::None => vec![],
        PodCidrType::Cluster => vec![Origin::Cluster],
        PodCidrType::Calico => vec![Origin::Calico],
        PodCidrType::Cilium => vec![Origin::Cilium],
    };
    Detected { origins, note: None }
}

/// What auto could not look for: it may have chosen something else because of that.
fn unread(sources: &Sources) -> impl Iterator<Item = Note> {
    let failed = [
        ("Calico's IPPools", sources.calico.failure()),
        ("Cilium's ConfigMap", sources.cilium.failure()),
        ("CiliumPodIPPools", sources.cilium_pools.failure()),
    ];
    failed.into_iter().filter_map(|(what, error)| Some(Note::Unread { what, error: error?.to_owned() }))
}

fn pods_of(origin: Origin, sources: &Sources, notes: &mut Vec<Note>) -> Result<Cidrs, StatusProblem> {
    match origin {
        Origin::Cluster => cluster(sources, notes),
        Origin::Cloud => Ok(cluster(sources, notes).unwrap_or_else(|_| {
            let network = sources.cni.as_ref().map(|cni| cni.description.clone());
            notes.push(Note::Cloud(network.unwrap_or_default()));
            Cidrs::default()
        })),
        Origin::Calico => calico(sources),
        Origin::Cilium => cilium(sources, notes),
    }
}

/// The first source that names any: what kubeadm was given, what the controller manager was given, what nodes got.
fn cluster(sources: &Sources, notes: &mut Vec<Note>) -> Result<Cidrs, StatusProblem> {
    let mut looked = Vec::new();
    let kubeadm = sources.kubeadm.clone().map(|kubeadm| kubeadm.pods);
    let arguments = sources.control_plane.clone().map(|control_plane| control_plane.pods);
    let known = first(
        [(kubeadm, KUBEADM, "networking.podSubnet"), (arguments, CONTROLLER_MANAGER, "--cluster-cidr")],
        &mut looked,
        notes,
    );
    if let Some(cidrs) = known {
        return Ok(cidrs);
    }
    looked.push("no Node has spec.podCIDRs".to_owned());
    let nodes = Some(Cidrs::from(sources.nodes.clone())).filter(|nodes| !nodes.nets.is_empty());
    nodes.ok_or(StatusProblem::Cluster { looked })
}

const KUBEADM: &str = "ConfigMap kube-system/kubeadm-config";
const CONTROLLER_MANAGER: &str = "a kube-controller-manager pod in kube-system";
const API_SERVER: &str = "a kube-apiserver pod in kube-system";

/// The CIDRs of the first source that has any, each with its name and that of its field. Says in `looked` what is
/// missing in those before it.
fn first<const N: usize>(
    from: [(Read<Cidrs>, &str, &str); N],
    looked: &mut Vec<String>,
    notes: &mut Vec<Note>,
) -> Option<Cidrs> {
    for (source, name, field) in from {
        match source {
            Read::Absent => looked.push(format!("{name} does not exist")),
            Read::Failed(error) => looked.push(error),
            Read::Found(cidrs) => {
                let Cidrs { nets, invalid } = cidrs;
                notes.extend(invalid.into_iter().map(Note::Invalid));
                if !nets.is_empty() {
                    return Some(nets.into());
                }
                looked.push(format!("{name} has no {field}"));
            }
        }
    }
    None
}

fn calico(sources: &Sources) -> Result<Cidrs, StatusProblem> {
    let found = match &sources.calico {
        Read::Found(pools) if !pools.nets.is_empty() => return Ok(pools.clone()),
        Read::Found(pools) if !pools.invalid.is_empty() => {
            pools.invalid.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        Read::Found(_) => "there is no IPPool of crd.projectcalico.org/v1 or projectcalico.org/v3".to_owned(),
        Read::Failed(error) => format!("its IPPools cannot be read: {error}"),
        Read::Absent => {
            "the API server knows no IPPool of crd.projectcalico.org/v1 or projectcalico.org/v3".to_owned()
        }
    };
    Err(StatusProblem::Calico { found })
}

fn cilium(sources: &Sources, notes: &mut Vec<Note>) -> Result<Cidrs, StatusProblem> {
    let name = || sources.cilium_config_map.clone();
    let unknown = |problem| Err(StatusProblem::Cilium(problem));
    let config = match &sources.cilium {
        Read::Found(config) => config,
        Read::Failed(error) => return unknown(CiliumProblem::Unreadable(error.clone())),
        Read::Absent => return unknown(CiliumProblem::NoConfigMap(name())),
    };
    if let Some(mode) = &config.chained {
        return unknown(CiliumProblem::Chained(mode.clone()));
    }
    match (&config.ipam, &sources.cilium_pools) {
        (Ipam::ClusterPool, _) if config.pools.nets.is_empty() => {
            notes.extend(config.pools.invalid.iter().cloned().map(Note::Invalid));
            unknown(CiliumProblem::NoClusterPool(name()))
        }
        (Ipam::ClusterPool, _) => Ok(config.pools.clone()),
        (Ipam::MultiPool, Read::Found(pools)) if !pools.nets.is_empty() => Ok(pools.clone()),
        (Ipam::MultiPool, Read::Failed(error)) => unknown(CiliumProblem::Unreadable(error.clone())),
        (Ipam::MultiPool, _) => unknown(CiliumProblem::NoPodIpPool),
        (Ipam::Kubernetes, _) => cluster(sources, notes),
        (Ipam::Other(mode), _) => unknown(CiliumProblem::Ipam(mode.clone())),
    }
}

fn services(sources: &Sources, notes: &mut Vec<Note>) -> Result<Cidrs, StatusProblem> {
    let kubeadm = sources.kubeadm.clone().map(|kubeadm| kubeadm.services);
    let arguments = sources.control_plane.clone().map(|control_plane| control_plane.services);
    let mut looked = Vec::new();
    let known = first(
        [
            (sources.service_cidrs.clone(), "a ServiceCIDR object", "spec.cidrs"),
            (kubeadm, KUBEADM, "networking.serviceSubnet"),
            (arguments, API_SERVER, "--service-cluster-ip-range"),
        ],
        &mut looked,
        notes,
    );
    known.ok_or(StatusProblem::Services { looked })
}

#[cfg(test)]
mod tests;
