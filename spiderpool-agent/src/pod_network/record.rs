//! What is known of one sandbox: the pod, its attachments and its NICs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use spiderpool_api::agent::NetnsIdentity;
use spiderpool_api::agent::dataplane::{Attachment, Nic, NicRole, NodeLinkCallers, RegisterNics, RouteHints};
use spiderpool_core::coordinator::{NodeLink, VETH0};
use spiderpool_core::dataplane::{OwnCidrs, PortRange};
use spiderpool_core::names::{ContainerId, IfName, NameError, PodName, PodUid};

use super::profile_key::ProfileKey;

/// How far a pod of the inventory has come since the agent started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PodState {
    /// Read from the state file. It is not known whether the pod still runs.
    #[default]
    Unverified,
    /// It runs. Its NICs may lack entries in the maps, or have programs of an earlier agent.
    Verified,
    /// Its NICs have entries and programs; the plugin attaches those of a pod that registers.
    Attached,
}

/// One sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodRecord {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// Where its network namespace is.
    pub netns: PathBuf,
    /// Which one that was.
    pub netns_identity: NetnsIdentity,
    /// The pod.
    #[serde(flatten)]
    pub pod: PodName,
    /// Absent where the runtime does not pass it to the plugin.
    #[serde(default, rename = "podUID", deserialize_with = "empty_as_none")]
    pub pod_uid: Option<PodUid>,
    /// Its set of CIDRs in the map.
    pub profile: u16,
    /// Its CNI attachments.
    pub attachments: Vec<AttachmentRecord>,
    /// Its NICs.
    pub nics: Vec<NicRecord>,
    /// Its `ip_local_port_range`, as last read. Of this process, so it is not in the file.
    #[serde(skip)]
    pub ports: PortRange,
    /// Of this process, too.
    #[serde(skip)]
    pub state: PodState,
}

/// Older agents wrote an empty text where the UID is absent.
fn empty_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PodUid>, D::Error> {
    let uid = Option::<String>::deserialize(deserializer)?.filter(|uid| !uid.is_empty());
    uid.map(PodUid::try_from).transpose().map_err(serde::de::Error::custom)
}

/// What one attachment has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttachmentRecord {
    /// The CNI network.
    pub network: String,
    /// The NIC that it made.
    pub if_name: IfName,
    /// What must not be steered.
    pub stay: Vec<IpNet>,
    /// Next hops by the pod's underlay NICs. `None`: an older agent took the registration, they are not known yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateways: Option<BTreeSet<IpAddr>>,
    /// What must be steered, where the agent does not decide.
    #[serde(default)]
    pub own_cidrs: OwnCidrs,
    /// Whether the pod gets route hints.
    pub route_hints: RouteHints,
    /// Who may open flows to the pod by its node link.
    #[serde(default)]
    pub node_link: NodeLinkCallers,
}

/// A NIC and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NicRecord {
    /// Unique on the node.
    pub id: u16,
    /// As registered.
    pub nic: Nic,
}

impl AttachmentRecord {
    /// Whether this is the attachment.
    pub(super) fn is(&self, attachment: &Attachment) -> bool {
        self.if_name == attachment.if_name && self.network == attachment.network
    }
}

impl PodRecord {
    /// The pod of a registration, without NICs and attachments.
    pub(super) fn new(request: &RegisterNics, netns_identity: NetnsIdentity) -> Self {
        Self {
            container_id: request.attachment.container_id.clone(),
            netns: PathBuf::from(&request.netns),
            netns_identity,
            pod: request.pod.clone(),
            pod_uid: request.pod_uid.clone(),
            profile: 0,
            attachments: Vec::new(),
            nics: Vec::new(),
            ports: PortRange::DEFAULT,
            state: PodState::Attached,
        }
    }

    /// Replaces what the attachment has registered.
    pub(super) fn put_attachment(&mut self, request: &RegisterNics) {
        self.attachments.retain(|known| !known.is(&request.attachment));
        self.attachments.push(AttachmentRecord {
            network: request.attachment.network.clone(),
            if_name: request.attachment.if_name.clone(),
            stay: request.stay.clone(),
            gateways: Some(request.gateways.clone()),
            own_cidrs: request.own_cidrs.clone(),
            route_hints: request.route_hints,
            node_link: request.node_link,
        });
    }

    /// The id of the cluster NIC, which is the pod's.
    pub(crate) fn id(&self) -> u16 {
        self.cluster_nic().map_or(0, |record| record.id)
    }

    /// The NIC to Services and overlay pods: in underlay mode it is veth0, which is registered as node link.
    pub(crate) fn cluster_nic(&self) -> Option<&NicRecord> {
        self.nic(NicRole::Cluster).or_else(|| self.veth0())
    }

    fn veth0(&self) -> Option<&NicRecord> {
        self.nic(NicRole::NodeLink).filter(|record| record.nic.name.as_str() == VETH0)
    }

    /// Whether the pod's first NIC is on the underlay.
    pub(crate) fn is_underlay(&self) -> bool {
        self.veth0().is_some()
    }

    /// The NIC that the main CNI plugin has made first. Of an underlay pod every registration names it before others.
    pub(crate) fn first_nic(&self) -> Option<&NicRecord> {
        self.nic(if self.is_underlay() { NicRole::Underlay } else { NicRole::Cluster })
    }

    /// Its node link as the plugin makes it.
    pub(crate) fn node_link(&self) -> Result<NodeLink, NameError> {
        let container_id = self.container_id.as_str();
        if !self.is_underlay() {
            return NodeLink::new(container_id);
        }
        let addresses = self.veth0().into_iter().flat_map(|record| &record.nic.addresses);
        let address = addresses.map(IpNet::addr).find_map(|address| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        NodeLink::underlay(container_id, address)
    }

    /// The NIC with this role; the first if there are several.
    pub(crate) fn nic(&self, role: NicRole) -> Option<&NicRecord> {
        self.nics.iter().find(|record| record.nic.role == role)
    }

    /// What decides the pod's set of CIDRs.
    pub(crate) fn profile_key(&self) -> ProfileKey {
        let own: BTreeSet<IpNet> = self
            .nics
            .iter()
            .flat_map(|record| &record.nic.addresses)
            .map(|net| IpNet::from(net.addr()))
            .collect();
        let connected = self.nics.iter().flat_map(|record| &record.nic.addresses).map(IpNet::trunc).collect();
        let stay = self.attachments.iter().flat_map(|attachment| &attachment.stay).map(IpNet::trunc);
        // A pod's own addresses never differ from one pod to the next in what they decide.
        let stay = stay.filter(|net| !own.contains(net)).collect();
        let gateways = self.attachments.iter().flat_map(|attachment| &attachment.gateways).flatten();
        let gateways = gateways.copied().collect();
        ProfileKey { gateways, ..ProfileKey::new(stay, &connected, self.own_cidrs()) }
    }

    /// Whether the next hops of its routes are known: each registration lists those by all underlay NICs.
    pub(super) fn has_gateways(&self) -> bool {
        self.attachments.is_empty() || self.attachments.iter().any(|known| known.gateways.is_some())
    }

    /// The CIDRs that its networks name.
    pub(crate) fn own_cidrs(&self) -> OwnCidrs {
        let mut own = OwnCidrs::default();
        self.attachments.iter().for_each(|attachment| own.join(&attachment.own_cidrs));
        own
    }

    /// Whether one of the pod's networks keeps the node's other pods from the node link. In underlay mode it is the pod's way to them.
    pub(crate) fn refuses_neighbors(&self) -> bool {
        !self.is_underlay() && self.attachments.iter().any(|known| known.node_link == NodeLinkCallers::Node)
    }

    /// Whether one of the pod's networks switches route hints off.
    pub(super) fn refuses_hints(&self) -> bool {
        self.attachments.iter().any(|attachment| attachment.route_hints == RouteHints::Never)
    }
}
