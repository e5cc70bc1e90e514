//! The coordinator registers a pod's NICs, the agent gives them ids and owns the map entries:
//! bodies of `/v1/dataplane/nics`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
pub use spiderpool_core::coordinator::{NodeLinkCallers, RouteHints};
use spiderpool_core::dataplane::OwnCidrs;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::{ContainerId, IfName, PodName, PodUid};

use super::OpenNetns;

/// Body of PUT `/v1/dataplane/nics`. Registering the same NICs again is not an error and gives the same ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterNics {
    /// The attachment that asks.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The pod.
    #[serde(flatten)]
    pub pod: PodName,
    /// Absent where the runtime does not tell the plugin.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<PodUid>,
    /// Path of the pod's network namespace on the node, from which the agent re-attaches after a restart.
    pub netns: String,
    /// The same one, found where the path is not the agent's. Absent from older plugins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_netns: Option<OpenNetns>,
    /// Every NIC of the pod that programs are attached to, the cluster NIC and the node link included.
    pub nics: Vec<Nic>,
    /// What the pod's own routes say and the cluster's CIDRs must not overrule: connected subnets, pool
    /// routes, policyRoutes.
    #[serde(default)]
    pub stay: Vec<IpNet>,
    /// Next hops of the pod's own routes by its underlay NICs.
    #[serde(default)]
    pub gateways: BTreeSet<IpAddr>,
    /// CIDRs that the network's configuration names itself; of the other kinds the agent's are steered.
    #[serde(default)]
    pub own_cidrs: OwnCidrs,
    /// Whether the agent keeps route hints in the pod's main table.
    pub route_hints: RouteHints,
    /// Who may open flows to the pod by its node link.
    #[serde(default)]
    pub node_link: NodeLinkCallers,
}

/// One CNI attachment of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// `name` of the CNI configuration.
    pub network: String,
    /// `CNI_IFNAME`.
    pub if_name: IfName,
}

/// What a NIC is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NicRole {
    /// eth0 in overlay mode: Services, overlay pods and the node.
    Cluster,
    /// Reaches the underlay.
    Underlay,
    /// sp0: the node reaches the pod's underlay addresses.
    NodeLink,
}

/// One NIC of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// Name in the pod.
    pub name: IfName,
    /// What it is for.
    pub role: NicRole,
    /// Index in the pod's network namespace.
    pub ifindex: u32,
    /// Its own MAC address.
    pub mac: MacAddr,
    /// MAC address of the other end, for the cluster NIC and the node link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_mac: Option<MacAddr>,
    /// In bytes.
    pub mtu: u32,
    /// Its addresses with prefix lengths, link-local ones left out; those that IPAM gave come first.
    pub addresses: Vec<IpNet>,
    /// The default routes by it. Of older plugins they are not known.
    #[serde(default)]
    pub default_routes: DefaultRoutes,
}

/// Default routes by one NIC; `None` where there is none, or it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRoutes {
    /// That of IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<RouteRank>,
    /// That of IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<RouteRank>,
}

/// Which of several routes to the same destination one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteRank {
    /// The kernel prefers it.
    Used,
    /// Another one is preferred.
    Backup,
}

/// Answer of PUT `/v1/dataplane/nics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredNics {
    /// The id of each NIC: the classid of its filters, the index of its counters.
    pub nics: Vec<NicId>,
    /// Directory in bpffs with the pinned programs.
    pub programs: String,
}

/// The id of one NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicId {
    /// Name in the pod.
    pub name: IfName,
    /// 1 to 65535, unique on the node.
    pub id: u16,
}

/// Body of DELETE `/v1/dataplane/nics`: the attachment's NIC goes; the cluster NIC and the node link go with
/// the pod's last underlay NIC. Unknown attachments are not an error.
pub type UnregisterNics = Attachment;
