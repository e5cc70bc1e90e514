//! Where the CIDRs of each kind are looked for.

use crate::leader::coordinator::cidrs::Cidrs;
use crate::leader::coordinator::detect::Origin;
use crate::leader::coordinator::outcome::Read;
use crate::leader::coordinator::problem::{CiliumProblem, Note, StatusProblem};
use crate::leader::coordinator::sources::Sources;
use crate::leader::coordinator::sources::cilium::Ipam;

const KUBEADM: &str = "ConfigMap kube-system/kubeadm-config";
const CONTROLLER_MANAGER: &str = "a kube-controller-manager pod in kube-system";
const API_SERVER: &str = "a kube-apiserver pod in kube-system";
const SERVICE_CIDRS: &str = "a ServiceCIDR object";

/// A search, and what there is to say of it.
pub(super) struct Search<'a> {
    sources: &'a Sources,
    pub(super) notes: Vec<Note>,
    /// Something that comes first could not be read: what was found instead may be less than there is.
    pub(super) is_partial: bool,
}

/// Several places where the same CIDRs may be, the first one that has any counts.
struct Places<const N: usize> {
    /// Each with its name and that of its field.
    all: [(Read<Cidrs>, &'static str, &'static str); N],
    /// What was found there instead.
    looked: Vec<String>,
    is_unread: bool,
}

impl<const N: usize> Places<N> {
    fn new(places: [(Read<Cidrs>, &'static str, &'static str); N]) -> Self {
        Self { all: places, looked: Vec::new(), is_unread: false }
    }
}

impl<'a> Search<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self { sources, notes: Vec::new(), is_partial: false }
    }

    /// The pod CIDRs of one origin.
    pub(super) fn pods_of(&mut self, origin: Origin) -> Result<Cidrs, StatusProblem> {
        match origin {
            Origin::Cluster => self.cluster(),
            Origin::Cloud => Ok(self.cluster().unwrap_or_else(|_| {
                let network = self.sources.cni.as_ref().map(|cni| cni.description.clone());
                self.notes.push(Note::Cloud(network.unwrap_or_default()));
                Cidrs::default()
            })),
            Origin::Calico => calico(self.sources),
            Origin::Cilium => self.cilium(),
        }
    }

    /// The Service CIDRs.
    pub(super) fn services(&mut self) -> Result<Cidrs, StatusProblem> {
        let kubeadm = self.sources.kubeadm.clone().map(|kubeadm| kubeadm.services);
        let arguments = self.sources.control_plane.clone().map(|control_plane| control_plane.services);
        let mut places = Places::new([
            (self.sources.service_cidrs.clone(), SERVICE_CIDRS, "spec.cidrs"),
            (kubeadm, KUBEADM, "networking.serviceSubnet"),
            (arguments, API_SERVER, "--service-cluster-ip-range"),
        ]);
        self.first(&mut places).ok_or(StatusProblem::Services { looked: places.looked })
    }

    /// What kubeadm was given, what the controller manager was given, what nodes got.
    fn cluster(&mut self) -> Result<Cidrs, StatusProblem> {
        let kubeadm = self.sources.kubeadm.clone().map(|kubeadm| kubeadm.pods);
        let arguments = self.sources.control_plane.clone().map(|control_plane| control_plane.pods);
        let mut places = Places::new([
            (kubeadm, KUBEADM, "networking.podSubnet"),
            (arguments, CONTROLLER_MANAGER, "--cluster-cidr"),
        ]);
        if let Some(cidrs) = self.first(&mut places) {
            return Ok(cidrs);
        }
        let Places { mut looked, is_unread, .. } = places;
        looked.push("no Node has spec.podCIDRs".to_owned());
        let nodes = Some(Cidrs::from(self.sources.nodes.clone())).filter(|nodes| !nodes.nets.is_empty());
        nodes.ok_or(StatusProblem::Cluster { looked, is_unread })
    }

    fn cilium(&mut self) -> Result<Cidrs, StatusProblem> {
        let name = || self.sources.cilium_config_map.clone();
        let unknown = |problem| Err(StatusProblem::Cilium(problem));
        let config = match &self.sources.cilium {
            Read::Found(config) => config,
            Read::Failed(error) => return unknown(CiliumProblem::Unreadable(error.clone())),
            Read::Absent => return unknown(CiliumProblem::NoConfigMap(name())),
        };
        if let Some(mode) = &config.chained {
            return unknown(CiliumProblem::Chained(mode.clone()));
        }
        match (&config.ipam, &self.sources.cilium_pools) {
            (Ipam::ClusterPool, _) if config.pools.nets.is_empty() => {
                self.notes.extend(config.pools.invalid.iter().cloned().map(Note::Invalid));
                unknown(CiliumProblem::NoClusterPool(name()))
            }
            (Ipam::ClusterPool, _) => Ok(config.pools.clone()),
            (Ipam::MultiPool, Read::Found(pools)) if !pools.nets.is_empty() => Ok(pools.clone()),
            (Ipam::MultiPool, Read::Failed(error)) => unknown(CiliumProblem::Unreadable(error.clone())),
            (Ipam::MultiPool, _) => unknown(CiliumProblem::NoPodIpPool),
            (Ipam::Kubernetes, _) => self.cluster(),
            (Ipam::Other(mode), _) => unknown(CiliumProblem::Ipam(mode.clone())),
        }
    }

    /// The CIDRs of the first place that has any.
    fn first<const N: usize>(&mut self, places: &mut Places<N>) -> Option<Cidrs> {
        let mut unread = Vec::new();
        for (place, name, field) in &places.all {
            match place {
                Read::Absent => places.looked.push(format!("{name} does not exist")),
                Read::Failed(error) => {
                    places.looked.push(error.clone());
                    places.is_unread = true;
                    unread.push(Note::Unread { what: name, error: error.clone() });
                }
                Read::Found(Cidrs { nets, invalid }) => {
                    self.notes.extend(invalid.iter().cloned().map(Note::Invalid));
                    if !nets.is_empty() {
                        self.is_partial |= places.is_unread;
                        self.notes.append(&mut unread);
                        return Some(nets.clone().into());
                    }
                    places.looked.push(format!("{name} has no {field}"));
                }
            }
        }
        None
    }
}

fn calico(sources: &Sources) -> Result<Cidrs, StatusProblem> {
    let found = match &sources.calico {
        Read::Found(pools) if !pools.nets.is_empty() => return Ok(pools.clone()),
        Read::Failed(error) => return Err(StatusProblem::CalicoUnread(error.clone())),
        Read::Found(pools) if !pools.invalid.is_empty() => {
            pools.invalid.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        Read::Found(_) => "there is no IPPool of crd.projectcalico.org/v1 or projectcalico.org/v3".to_owned(),
        Read::Absent => {
            "the API server knows no IPPool of crd.projectcalico.org/v1 or projectcalico.org/v3".to_owned()
        }
    };
    Err(StatusProblem::Calico { found })
}
