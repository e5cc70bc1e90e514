//! The pods of this node whose NICs are registered, with the ids of these NICs. Pure: [`super::PodNetworks`] keeps it on
//! disk, the dataplane writes it into the maps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use spiderpool_api::agent::NetnsIdentity;
use spiderpool_api::agent::dataplane::{Attachment, Nic, NicRole, RegisterNics};
use spiderpool_core::dataplane::PortRange;
use spiderpool_core::names::ContainerId;
use spiderpool_dataplane::NicsOrigin;
use thiserror::Error;

use super::ids::{self, FoundNic, ReservedId, next_id};
use super::profile_key::ProfileKey;
use super::record::{NicRecord, PodRecord, PodState};

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

/// What a removal took out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// The attachment is unknown.
    Nothing,
    /// A NIC of a pod that has others.
    Nic,
    /// The pod, with its last underlay NIC.
    Pod,
}

/// All sandboxes. An id is a pod's, or reserved, or free.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "Stored")]
pub(crate) struct Inventory {
    pods: BTreeMap<ContainerId, PodRecord>,
    last_id: u16,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    reserved: BTreeMap<u16, ReservedId>,
    /// See [`Inventory::lost`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lost: bool,
}

/// The inventory as this agent and older ones wrote it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    pods: BTreeMap<ContainerId, PodRecord>,
    last_id: u16,
    #[serde(default)]
    reserved: BTreeMap<u16, ReservedId>,
    /// Orphaned ids with their profiles, as older agents wrote them.
    #[serde(default)]
    strangers: BTreeMap<u16, u16>,
    #[serde(default)]
    lost: bool,
}

impl From<Stored> for Inventory {
    fn from(stored: Stored) -> Self {
        let Stored { pods, last_id, mut reserved, strangers, lost } = stored;
        let orphaned = strangers.into_iter().map(|(id, profile)| (id, ReservedId::Orphaned { profile }));
        reserved.extend(orphaned);
        Self { pods, last_id, reserved, lost }
    }
}

impl Inventory {
    /// In place of one that is gone: pods may run that it does not know, until it is compared with the maps.
    pub(crate) fn lost() -> Self {
        Self { lost: true, ..Self::default() }
    }

    /// All sandboxes, by container id.
    pub(crate) fn pods(&self) -> impl Iterator<Item = &PodRecord> {
        self.pods.values()
    }

    /// The pods in this state.
    pub(crate) fn pods_in(&self, state: PodState) -> Vec<PodRecord> {
        self.pods().filter(|pod| pod.state == state).cloned().collect()
    }

    /// One sandbox.
    pub(crate) fn pod(&self, container_id: &ContainerId) -> Option<&PodRecord> {
        self.pods.get(container_id)
    }

    /// Sets the state of a pod; an unknown one changes nothing.
    pub(crate) fn set_state(&mut self, container_id: &ContainerId, state: PodState) {
        if let Some(pod) = self.pods.get_mut(container_id) {
            pod.state = state;
        }
    }

    /// Sets the pod's port range; an unknown pod changes nothing.
    pub(crate) fn set_ports(&mut self, container_id: &ContainerId, ports: PortRange) {
        if let Some(pod) = self.pods.get_mut(container_id) {
            pod.ports = ports;
        }
    }

    /// Sets what an older agent has not written of a pod. It keeps the number of its profile, whose entries serve it
    /// until they are written anew, unless a pod whose gateways are known has that number with other ones.
    pub(crate) fn set_gateways(&mut self, container_id: &ContainerId, gateways: &BTreeSet<IpAddr>) {
        let Some(pod) = self.pods.get_mut(container_id) else { return };
        for attachment in &mut pod.attachments {
            attachment.gateways.get_or_insert_with(|| gateways.clone());
        }
        let pod = pod.clone();
        let is_other = |other: &PodRecord| {
            other.container_id != pod.container_id && other.profile == pod.profile && other.has_gateways()
        };
        let key = pod.profile_key();
        if self.pods().any(|other| is_other(other) && other.profile_key() != key) {
            let profile = self.profile_for(&pod);
            self.pods.entry(pod.container_id).and_modify(|pod| pod.profile = profile);
        }
    }

    /// The NIC ids of pods.
    pub(crate) fn ids(&self) -> BTreeSet<u16> {
        self.pods().flat_map(|pod| &pod.nics).map(|record| record.id).collect()
    }

    /// Ids whose entries in the maps must be removed.
    pub(crate) fn retiring(&self) -> Vec<(u16, ReservedId)> {
        let retiring = self.reserved.iter().filter(|(_, why)| !matches!(why, ReservedId::Orphaned { .. }));
        retiring.map(|(id, why)| (*id, *why)).collect()
    }

    /// Nothing of a retiring id is in the maps any more: it is free.
    pub(crate) fn free(&mut self, id: u16) {
        if !matches!(self.reserved.get(&id), Some(ReservedId::Orphaned { .. })) {
            self.reserved.remove(&id);
        }
    }

    /// How many ids belong to pods that the inventory does not know.
    pub(crate) fn orphaned(&self) -> usize {
        self.reserved.values().filter(|why| matches!(why, ReservedId::Orphaned { .. })).count()
    }

    /// The profiles of pods, each with what decides it.
    pub(crate) fn profiles(&self) -> BTreeMap<u16, ProfileKey> {
        // The later counts where two share a number, see `set_gateways`.
        let (unknown, known): (Vec<_>, Vec<_>) = self.pods().partition(|pod| !pod.has_gateways());
        let pods = unknown.into_iter().chain(known);
        pods.map(|pod| (pod.profile, pod.profile_key())).collect()
    }

    /// The profiles that entries in the maps refer to, those of orphaned ids included.
    pub(crate) fn profiles_in_use(&self) -> BTreeSet<u16> {
        self.pods().map(|pod| pod.profile).chain(self.orphaned_profiles()).collect()
    }

    fn orphaned_profiles(&self) -> impl Iterator<Item = u16> {
        self.reserved.values().filter_map(|why| match why {
            ReservedId::Orphaned { profile } => Some(*profile),
            ReservedId::RetiringNic | ReservedId::RetiringPod => None,
        })
    }

    /// Compares with what an earlier agent left in the maps: an id that no pod has is retired, or orphaned if the
    /// inventory was lost. It stays lost where the map with the entries of its pods was replaced.
    pub(crate) fn compare(&mut self, found: &[FoundNic], origin: NicsOrigin) {
        self.reserved = ids::compare(&self.reserved, &self.ids(), self.lost, found, origin);
        self.lost &= origin == NicsOrigin::Replaced;
    }

    /// Whether pods may run that the inventory does not know, with profiles that it does not know either.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Takes a registration in. The same NICs get the same ids again; what an older sandbox of another namespace
    /// had under this container id is retired. Answers the pod with all its NICs.
    pub(crate) fn register(
        &mut self,
        request: &RegisterNics,
        netns_identity: NetnsIdentity,
        max_id: u16,
    ) -> Result<PodRecord, InventoryError> {
        let container_id = &request.attachment.container_id;
        let known = self.pods.get(container_id);
        let (same, older) = match known {
            Some(pod) if pod.netns_identity == netns_identity => (Some(pod.clone()), None),
            other => (None, other.cloned()),
        };
        let mut pod = same.unwrap_or_else(|| PodRecord::new(request, netns_identity));
        let mut used: BTreeSet<u16> = self.ids();
        used.extend(self.reserved.keys());
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
        if pod.cluster_nic().is_none() {
            return Err(InventoryError::NoClusterNic(container_id.clone()));
        }
        pod.netns = PathBuf::from(&request.netns);
        pod.put_attachment(request);
        pod.profile = self.profile_for(&pod);
        if pod.state == PodState::Unverified {
            pod.state = PodState::Verified;
        }
        self.last_id = last_id;
        self.pods.insert(container_id.clone(), pod.clone());
        if let Some(older) = older {
            self.retire(&older);
        }
        Ok(pod)
    }

    /// Takes an attachment out; the whole sandbox with its last underlay NIC. Unknown ones change nothing.
    pub(crate) fn unregister(&mut self, attachment: &Attachment) -> Removed {
        let Some(pod) = self.pods.get_mut(&attachment.container_id) else { return Removed::Nothing };
        if !pod.attachments.iter().any(|known| known.is(attachment)) {
            return Removed::Nothing;
        }
        let is_its = |record: &NicRecord| {
            record.nic.name == attachment.if_name && record.nic.role == NicRole::Underlay
        };
        if !pod.nics.iter().any(|record| record.nic.role == NicRole::Underlay && !is_its(record)) {
            self.remove(&attachment.container_id);
            return Removed::Pod;
        }
        pod.attachments.retain(|known| !known.is(attachment));
        let retired: Vec<NicRecord> = pod.nics.extract_if(.., |record| is_its(record)).collect();
        self.reserved.extend(retired.iter().map(|record| (record.id, ReservedId::RetiringNic)));
        let pod = pod.clone();
        let profile = self.profile_for(&pod);
        if let Some(pod) = self.pods.get_mut(&attachment.container_id) {
            pod.profile = profile;
        }
        Removed::Nic
    }

    /// Takes a sandbox out.
    pub(crate) fn remove(&mut self, container_id: &ContainerId) {
        if let Some(pod) = self.pods.remove(container_id) {
            self.retire(&pod);
        }
    }

    fn retire(&mut self, pod: &PodRecord) {
        let retiring = |record: &NicRecord| {
            let is_pods = record.id == pod.id();
            (record.id, if is_pods { ReservedId::RetiringPod } else { ReservedId::RetiringNic })
        };
        self.reserved.extend(pod.nics.iter().map(retiring));
    }

    /// The profile of a pod that wants the same, else the lowest that no other pod uses.
    fn profile_for(&self, pod: &PodRecord) -> u16 {
        let key = pod.profile_key();
        let others = || self.pods().filter(|other| other.container_id != pod.container_id);
        if let Some(same) = others().find(|other| other.profile_key() == key) {
            return same.profile;
        }
        let used: BTreeSet<u16> =
            others().map(|other| other.profile).chain(self.orphaned_profiles()).collect();
        (1..=u16::MAX).find(|profile| !used.contains(profile)).unwrap_or(u16::MAX)
    }
}

/// The NIC with the addresses that were known before in front, in their order.
fn in_order(nic: &Nic, known: &[IpNet]) -> Nic {
    let mut nic = nic.clone();
    nic.addresses.sort_by_key(|net| known.iter().position(|k| k == net).unwrap_or(usize::MAX));
    nic
}

#[cfg(test)]
mod tests;
