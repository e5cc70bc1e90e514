//! The pods of this node that the dataplane serves: who has which NIC id. Pure: the owner keeps it on disk and
//! carries it into the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use spiderpool_api::agent::dataplane::{Attachment, Nic, NicRole, RegisterNics, RouteHints};
use spiderpool_core::dataplane::OwnCidrs;
use spiderpool_core::names::{ContainerId, IfName, PodName, PodUid};
use thiserror::Error;

use super::profile_key::ProfileKey;

/// Tells a network namespace from a later one at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetnsIdentity {
    /// Device of the nsfs file.
    pub dev: u64,
    /// Its inode.
    pub inode: u64,
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
    /// Absent where the runtime does not tell the plugin.
    #[serde(default, rename = "podUID", deserialize_with = "empty_as_none")]
    pub pod_uid: Option<PodUid>,
    /// Its set of CIDRs in the map.
    pub profile: u16,
    /// Its CNI attachments.
    pub attachments: Vec<AttachmentRecord>,
    /// Its NICs.
    pub nics: Vec<NicRecord>,
}

/// As agents wrote it that did not know the type.
fn empty_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PodUid>, D::Error> {
    let uid = Option::<String>::deserialize(deserializer)?.filter(|uid| !uid.is_empty());
    uid.map(PodUid::try_from).transpose().map_err(serde::de::Error::custom)
}

/// What one attachment asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttachmentRecord {
    /// The CNI network.
    pub network: String,
    /// The NIC that it made.
    pub if_name: IfName,
    /// What must not be steered.
    pub stay: Vec<IpNet>,
    /// What must be steered, where the agent does not decide.
    #[serde(default)]
    pub own_cidrs: OwnCidrs,
    /// Whether the pod gets route hints.
    pub route_hints: RouteHints,
}

/// A NIC and its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NicRecord {
    /// Unique on the node.
    pub id: u16,
    /// As registered.
    pub nic: Nic,
}

/// Why a registration is refused.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum InventoryError {
    /// All ids are in use.
    #[error("all {0} NIC ids of this node are in use: give the agent a larger SPIDERPOOL_BPF_NICS")]
    Full(u16),
    /// The pod has no NIC to steer to.
    #[error("the registration of container {0} names no cluster NIC")]
    NoClusterNic(ContainerId),
}

/// All sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Inventory {
    pods: BTreeMap<ContainerId, PodRecord>,
    last_id: u16,
    /// Ids that were in use when the inventory was lost, with their profiles. Their pods may still run, so ids and
    /// profiles are left alone.
    #[serde(default)]
    pub(crate) strangers: BTreeMap<u16, u16>,
}

/// Ids that are no longer in use, and whose flows must be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Retired {
    /// NIC ids.
    pub nics: Vec<u16>,
    /// Pod ids, for the flows.
    pub pods: Vec<u16>,
}

impl Retired {
    /// These too.
    pub(crate) fn join(&mut self, other: Self) {
        self.nics.extend(other.nics);
        self.pods.extend(other.pods);
    }
}

impl PodRecord {
    /// The id of the cluster NIC, which is the pod's.
    pub(crate) fn id(&self) -> u16 {
        self.nic(NicRole::Cluster).map_or(0, |record| record.id)
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
        ProfileKey::new(stay, &connected, self.own_cidrs())
    }

    /// The CIDRs that its networks name.
    pub(crate) fn own_cidrs(&self) -> OwnCidrs {
        let mut own = OwnCidrs::default();
        self.attachments.iter().for_each(|attachment| own.join(&attachment.own_cidrs));
        own
    }

    fn retire(&self) -> Retired {
        Retired { nics: self.nics.iter().map(|record| record.id).collect(), pods: vec![self.id()] }
    }
}

impl Inventory {
    /// All sandboxes, by container id.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &PodRecord> {
        self.pods.values()
    }

    /// One sandbox.
    pub(crate) fn pod(&self, container_id: &ContainerId) -> Option<&PodRecord> {
        self.pods.get(container_id)
    }

    /// The NIC ids in use.
    pub(crate) fn ids(&self) -> BTreeSet<u16> {
        self.pods().flat_map(|pod| &pod.nics).map(|record| record.id).collect()
    }

    /// The profiles in use, each with what decides it.
    pub(crate) fn profiles(&self) -> BTreeMap<u16, ProfileKey> {
        self.pods().map(|pod| (pod.profile, pod.profile_key())).collect()
    }

    /// Takes a registration in. The same NICs get the same ids again; what an older sandbox of another namespace
    /// had under this container id is retired. Ids of `taken` are not given out.
    pub(crate) fn register(
        &mut self,
        request: &RegisterNics,
        netns_identity: NetnsIdentity,
        taken: &BTreeSet<u16>,
        max_id: u16,
    ) -> Result<Retired, InventoryError> {
        let container_id = &request.attachment.container_id;
        let known = self.pods.get(container_id);
        let (mut pod, retired) = match known.filter(|pod| pod.netns_identity == netns_identity) {
            Some(pod) => (pod.clone(), Retired::default()),
            None => (new_pod(request, netns_identity), known.map(PodRecord::retire).unwrap_or_default()),
        };
        let mut used: BTreeSet<u16> = self.ids().union(taken).copied().collect();
        used.extend(self.strangers.keys());
        let mut last_id = self.last_id;
        for nic in &request.nics {
            if let Some(record) = pod.nics.iter_mut().find(|record| record.nic.name == nic.name) {
                // Only the attachment of a NIC knows which of its addresses came from IPAM.
                let known = (nic.name != request.attachment.if_name).then(|| record.nic.addresses.clone());
                record.nic = in_order(nic, &known.unwrap_or_default());
                continue;
            }
            let id = next_id(last_id, &used, max_id).ok_or(InventoryError::Full(max_id))?;
            used.insert(id);
            last_id = id;
            pod.nics.push(NicRecord { id, nic: nic.clone() });
        }
        if pod.nic(NicRole::Cluster).is_none() {
            return Err(InventoryError::NoClusterNic(container_id.clone()));
        }
        pod.netns = PathBuf::from(&request.netns);
        put_attachment(&mut pod, request);
        pod.profile = self.profile_for(&pod);
        self.last_id = last_id;
        self.pods.insert(container_id.clone(), pod);
        Ok(retired)
    }

    /// Takes an attachment out; the whole sandbox with its last underlay NIC. Unknown ones change nothing.
    pub(crate) fn unregister(&mut self, attachment: &Attachment) -> Retired {
        let Some(pod) = self.pods.get_mut(&attachment.container_id) else { return Retired::default() };
        let is_it = |record: &AttachmentRecord| {
            record.if_name == attachment.if_name && record.network == attachment.network
        };
        if !pod.attachments.iter().any(is_it) {
            return Retired::default();
        }
        let leaves = |record: &NicRecord| {
            record.nic.name == attachment.if_name && record.nic.role == NicRole::Underlay
        };
        let rest = pod.nics.iter().any(|record| record.nic.role == NicRole::Underlay && !leaves(record));
        if !rest {
            return self.remove(&attachment.container_id);
        }
        pod.attachments.retain(|record| !is_it(record));
        let nics = pod.nics.extract_if(.., |record| leaves(record)).map(|record| record.id).collect();
        let pod = pod.clone();
        let profile = self.profile_for(&pod);
        if let Some(pod) = self.pods.get_mut(&attachment.container_id) {
            pod.profile = profile;
        }
        Retired { nics, pods: Vec::new() }
    }

    /// Takes a sandbox out.
    pub(crate) fn remove(&mut self, container_id: &ContainerId) -> Retired {
        self.pods.remove(container_id).map(|pod| pod.retire()).unwrap_or_default()
    }

    /// The profile of a pod that wants the same, else the lowest that no other pod uses.
    fn profile_for(&self, pod: &PodRecord) -> u16 {
        let key = pod.profile_key();
        let others = || self.pods().filter(|other| other.container_id != pod.container_id);
        if let Some(same) = others().find(|other| other.profile_key() == key) {
            return same.profile;
        }
        let strangers = self.strangers.values().copied();
        let used: BTreeSet<u16> = others().map(|other| other.profile).chain(strangers).collect();
        (1..=u16::MAX).find(|profile| !used.contains(profile)).unwrap_or(u16::MAX)
    }
}

/// The NIC with the addresses that were known before in front, in their order.
fn in_order(nic: &Nic, known: &[IpNet]) -> Nic {
    let mut nic = nic.clone();
    nic.addresses.sort_by_key(|net| known.iter().position(|k| k == net).unwrap_or(usize::MAX));
    nic
}

fn new_pod(request: &RegisterNics, netns_identity: NetnsIdentity) -> PodRecord {
    PodRecord {
        container_id: request.attachment.container_id.clone(),
        netns: PathBuf::from(&request.netns),
        netns_identity,
        pod: request.pod.clone(),
        pod_uid: request.pod_uid.clone(),
        profile: 0,
        attachments: Vec::new(),
        nics: Vec::new(),
    }
}

fn put_attachment(pod: &mut PodRecord, request: &RegisterNics) {
    let attachment = AttachmentRecord {
        network: request.attachment.network.clone(),
        if_name: request.attachment.if_name.clone(),
        stay: request.stay.clone(),
        own_cidrs: request.own_cidrs.clone(),
        route_hints: request.route_hints,
    };
    pod.attachments
        .retain(|known| (&known.network, &known.if_name) != (&attachment.network, &attachment.if_name));
    pod.attachments.push(attachment);
}

/// The next free id behind the last one that was given out, so that an id rests long before it comes again.
fn next_id(last: u16, used: &BTreeSet<u16>, max: u16) -> Option<u16> {
    (last.saturating_add(1)..=max).chain(1..=last.min(max)).find(|id| !used.contains(id))
}

#[cfg(test)]
mod tests;
