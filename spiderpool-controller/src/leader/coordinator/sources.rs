//! What the cluster says of its networks, a module per source: how its objects become CIDRs. Nothing is read here.

mod age;
pub(super) mod calico;
pub(super) mod cilium;
pub(super) mod cni_config;
pub(super) mod control_plane;
pub(super) mod kubeadm;
pub(super) mod service_cidrs;

use ipnet::IpNet;

use super::cidrs::Cidrs;
use super::outcome::Read;
use cilium::CiliumConfig;
use cni_config::CniConfig;
use control_plane::ControlPlane;
use kubeadm::Kubeadm;

/// What is known of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// CIDRs of the ServiceCIDR objects.
    pub(super) service_cidrs: Read<Cidrs>,
    /// kubeadm's configuration.
    pub(super) kubeadm: Read<Kubeadm>,
    /// Arguments of the control plane's pods.
    pub(super) control_plane: Read<ControlPlane>,
    /// Pod CIDRs of the nodes, neighbours merged.
    pub(super) nodes: Vec<IpNet>,
    /// CIDRs of Calico's IPPools.
    pub(super) calico: Read<Cidrs>,
    /// Cilium's ConfigMap.
    pub(super) cilium: Read<CiliumConfig>,
    /// CIDRs of the CiliumPodIPPools.
    pub(super) cilium_pools: Read<Cidrs>,
    /// Whose agents run; absent where nobody has asked for them.
    pub(super) agents: Read<Agents>,
    /// The CNI configuration of the controller's node.
    pub(super) cni: Option<CniConfig>,
    /// Namespace and name of Cilium's ConfigMap, whether it exists or not.
    pub(super) cilium_config_map: String,
}

/// Of which networks a node agent runs on some node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Agents {
    pub(super) calico: bool,
    pub(super) cilium: bool,
}
