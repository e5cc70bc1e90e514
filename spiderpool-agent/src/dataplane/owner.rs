//! Programs, maps and inventory, kept in agreement. Everything here blocks; it runs on one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use spiderpool_api::agent::dataplane::{Attachment, NicId, RegisterNics, RegisteredNics, RouteHints};
use spiderpool_core::names::ContainerId;
use spiderpool_dataplane::{Dataplane, LoadError, MapError, Sizes};
use spiderpool_net::netns::{NetNs, NetNsError};
use spiderpool_runtime::health::Condition;
use thiserror::Error;
use tracing::{debug, error, info, warn};

use super::attach::AttachError;
use super::cidrs::plan_cidrs;
use super::entries::{self, TooManyNics, entries};
use super::metrics::{DataplaneMetrics, Growth};
use crate::cluster_cidrs::ClusterCidrs;
use crate::pod_network::{
    IdleLinks, Inventory, InventoryError, NamespaceError, PodRecord, ProfileKey, Retired, StateFileError,
    netns, node_link, route_hints, state_file,
};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The eBPF object.
    pub object: PathBuf,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// The inventory's file.
    pub state: PathBuf,
    /// How many entries the maps have.
    pub sizes: Sizes,
}

/// Why the dataplane does not serve a pod.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// Programs and maps are not loaded.
    #[error("eBPF dataplane of this node is not loaded: {0}")]
    NotLoaded(String),
    /// The agent does not know yet what to steer.
    #[error("eBPF dataplane cannot serve the pod yet: no SpiderCoordinator is Synced")]
    NoCluster,
    /// The agent is shutting down.
    #[error("eBPF dataplane is shutting down")]
    Stopped,
    /// The pod's namespace is not there.
    #[error(transparent)]
    Netns(#[from] NetNsError),
    /// The registration makes no sense or does not fit.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// The pod does not fit the programs.
    #[error(transparent)]
    TooManyNics(#[from] TooManyNics),
    /// The inventory cannot be written.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// Programs and maps cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map cannot be written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The pod's namespace cannot be read or changed.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The programs cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Keeps programs, maps and inventory in agreement.
pub struct Owner {
    pub(super) settings: Settings,
    pub(super) metrics: DataplaneMetrics,
    pub(super) growth: Growth,
    pub(super) loaded: Condition,
    pub(super) dataplane: Option<Dataplane>,
    pub(super) failure: String,
    pub(super) inventory: Inventory,
    /// What could not be removed from the maps yet.
    pub(super) unretired: Retired,
    /// Sandboxes whose NICs could not be looked at after a restart.
    pub(super) unseen: BTreeSet<ContainerId>,
    pub(super) cluster: Option<ClusterCidrs>,
    pub(super) nodes: Vec<IpAddr>,
    /// Profiles as they were last written.
    pub(super) written: BTreeMap<u16, ProfileKey>,
    /// Profiles that may have entries in the map.
    pub(super) filled: BTreeSet<u16>,
    pub(super) leaving: IdleLinks,
}

impl Owner {
    /// Nothing is loaded before the first [`Owner::sweep`].
    pub fn new(settings: Settings, metrics: DataplaneMetrics, loaded: Condition) -> Self {
        Self {
            settings,
            metrics,
            growth: Growth::default(),
            loaded,
            dataplane: None,
            failure: "not yet".to_owned(),
            inventory: Inventory::default(),
            unretired: Retired::default(),
            unseen: BTreeSet::new(),
            cluster: None,
            nodes: Vec::new(),
            written: BTreeMap::new(),
            filled: BTreeSet::new(),
            leaving: IdleLinks::default(),
        }
    }

    /// Expires flows and reads counters; loads what is not loaded.
    pub fn sweep(&mut self) {
        self.leaving.delete_links();
        if self.dataplane.is_none() {
            self.load();
        }
        self.look_again();
        self.retire(Retired::default());
        let Some(dataplane) = &mut self.dataplane else { return };
        match dataplane.expire() {
            Ok(expired) => {
                self.metrics.nat_entries.set(i64::try_from(expired.left).unwrap_or(i64::MAX));
                self.metrics.nat_expired.inc_by(expired.removed as u64);
            }
            Err(error) => error!(%error, "flows cannot be expired"),
        }
        for id in self.inventory.ids() {
            match dataplane.stats(id) {
                Ok(stats) => self.growth.add(&self.metrics, id, &stats),
                Err(error) => error!(%error, nic = id, "counters cannot be read"),
            }
        }
        self.count();
    }

    pub(super) fn count(&self) {
        self.metrics.nics.set(i64::try_from(self.inventory.ids().len()).unwrap_or(i64::MAX));
    }

    pub(super) fn put_entries(&mut self, pod: &PodRecord) -> Result<(), DataplaneError> {
        let dataplane =
            self.dataplane.as_mut().ok_or_else(|| DataplaneError::NotLoaded(self.failure.clone()))?;
        for (id, entry) in entries(pod) {
            dataplane.nic_put(id, &entry)?;
        }
        for record in &pod.nics {
            dataplane.addresses_set(record.id, pod.id(), &entries::further_addresses(record))?;
        }
        Ok(())
    }

    /// Takes a registration in: first on disk, then in the maps, so that no id is ever in use and unknown.
    pub fn register(&mut self, request: &RegisterNics) -> Result<RegisteredNics, DataplaneError> {
        let Some(dataplane) = &self.dataplane else {
            return Err(DataplaneError::NotLoaded(self.failure.clone()));
        };
        if request.own_cidrs.needs_cluster() && self.cluster.is_none() {
            return Err(DataplaneError::NoCluster);
        }
        self.leaving.cancel(&request.attachment.container_id);
        let identity = netns::identity(&NetNs::open(&request.netns)?)?;
        let max_id = dataplane.max_id();
        let before = self.inventory.clone();
        let taken = self.unretired.nics.iter().copied().collect();
        let retired = self.inventory.register(request, identity, &taken, max_id)?;
        if let Some(Err(error)) = self.inventory.pod(&request.attachment.container_id).map(entries::check) {
            self.inventory = before;
            return Err(error.into());
        }
        if let Err(error) = self.save() {
            self.inventory = before;
            return Err(error);
        }
        self.retire(retired);
        self.write_profiles()?;
        let pod = self.inventory.pod(&request.attachment.container_id).cloned();
        let pod = pod.ok_or(DataplaneError::Stopped)?;
        self.put_entries(&pod)?;
        self.drop_profiles()?;
        self.count();
        debug!(container = %pod.container_id, pod = %pod.pod, id = pod.id(), "NICs registered");
        let wanted = |name| request.nics.iter().any(|nic| nic.name == name);
        let nics = pod.nics.iter().filter(|record| wanted(record.nic.name.clone()));
        Ok(RegisteredNics {
            nics: nics.map(|record| NicId { name: record.nic.name.clone(), id: record.id }).collect(),
            programs: self.settings.pin_dir.display().to_string(),
        })
    }

    /// Takes an attachment out: first of the maps, then of the disk.
    pub fn unregister(&mut self, attachment: &Attachment) -> Result<(), DataplaneError> {
        if self.dataplane.is_none() {
            return self.refuse_known(attachment);
        }
        let retired = self.inventory.unregister(attachment);
        if !retired.pods.is_empty() {
            self.leaving.add(&attachment.container_id);
        }
        self.retire(retired);
        self.write_profiles()?;
        if let Some(pod) = self.inventory.pod(&attachment.container_id).cloned() {
            self.put_entries(&pod)?;
        }
        self.drop_profiles()?;
        self.count();
        self.save()
    }

    /// Before the maps are there the inventory is only read: what it knows is compared when they are.
    fn refuse_known(&self, attachment: &Attachment) -> Result<(), DataplaneError> {
        let known = state_file::read(&self.settings.state)?;
        if known.is_some_and(|inventory| inventory.pod(&attachment.container_id).is_some()) {
            return Err(DataplaneError::NotLoaded(self.failure.clone()));
        }
        Ok(())
    }

    /// Removes these from the maps, and what could not be removed before. Their ids are not given out until then.
    pub(super) fn retire(&mut self, retired: Retired) {
        self.unretired.join(retired);
        let Some(dataplane) = &mut self.dataplane else { return };
        let Retired { nics, pods } = std::mem::take(&mut self.unretired);
        for id in nics {
            if let Ok(stats) = dataplane.stats(id) {
                self.growth.add(&self.metrics, id, &stats);
            }
            if let Err(error) = dataplane.nic_remove(id) {
                error!(%error, nic = id, "NIC that is gone cannot be removed, trying again");
                self.unretired.nics.push(id);
            }
            self.growth.forget(id);
        }
        for pod in pods {
            if let Err(error) = dataplane.pod_flush(pod) {
                error!(%error, pod, "flows of a pod that is gone cannot be removed, trying again");
                self.unretired.pods.push(pod);
            }
        }
    }

    pub(super) fn save(&self) -> Result<(), DataplaneError> {
        Ok(state_file::write(&self.settings.state, &self.inventory)?)
    }

    /// SpiderCoordinator or the node's addresses have changed.
    pub fn set(&mut self, cluster: Option<ClusterCidrs>, nodes: Option<Vec<IpAddr>>) {
        let mut changed = false;
        if let Some(cidrs) = cluster.filter(|cidrs| self.cluster.as_ref() != Some(cidrs)) {
            info!(service = ?cidrs.service, pod = ?cidrs.pod, hijack = ?cidrs.hijack, "cluster CIDRs changed");
            self.cluster = Some(cidrs);
            changed = true;
        }
        if let Some(addresses) = nodes.filter(|addresses| self.nodes != *addresses) {
            info!(?addresses, "node addresses changed");
            self.nodes = addresses;
            changed = true;
        }
        if changed {
            self.renew();
        }
    }

    /// Carries new destinations into the maps first, then into the pods' routes.
    pub(super) fn renew(&mut self) {
        self.written.clear();
        if let Err(error) = self.write_profiles().and_then(|()| self.drop_profiles()) {
            error!(%error, "CIDRs cannot be written");
        }
        let pods: Vec<PodRecord> = self.inventory.pods().cloned().collect();
        for pod in &pods {
            if let Err(error) = self.renew_node_link(pod) {
                warn!(%error, container = %pod.container_id, pod = %pod.pod, "node link cannot be renewed");
            }
            if let Err(error) = self.renew_hints(pod) {
                warn!(%error, container = %pod.container_id, pod = %pod.pod, "route hints cannot be renewed");
            }
        }
    }

    fn renew_node_link(&self, pod: &PodRecord) -> Result<(), DataplaneError> {
        if self.nodes.is_empty() {
            return Ok(()); // nobody has listed them yet
        }
        let Some(netns) = netns::open(pod)? else { return Ok(()) };
        let changed = node_link::refresh(&netns, pod, &self.nodes)?;
        if changed > 0 {
            info!(container = %pod.container_id, pod = %pod.pod, changed, "node link renewed");
        }
        Ok(())
    }

    fn renew_hints(&self, pod: &PodRecord) -> Result<(), DataplaneError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        if pod.attachments.iter().any(|attachment| attachment.route_hints == RouteHints::Never) {
            return Ok(());
        }
        let Some(netns) = netns::open(pod)? else { return Ok(()) };
        let cidrs = cluster.with(&pod.own_cidrs()).all();
        let changed = route_hints::refresh(&netns, pod, &cidrs, &self.nodes)?;
        if changed > 0 {
            info!(container = %pod.container_id, pod = %pod.pod, changed, "route hints renewed");
        }
        Ok(())
    }

    /// Makes the CIDRs of every profile in use what they should be.
    fn write_profiles(&mut self) -> Result<(), DataplaneError> {
        let Some(dataplane) = &mut self.dataplane else { return Ok(()) };
        let wanted = self.inventory.profiles();
        for (profile, key) in &wanted {
            if self.written.get(profile) == Some(key) {
                continue;
            }
            // Before the first word of the API server the maps hold what the last agent knew.
            let Some(cluster) = self.cluster.as_ref().or((!key.needs_cluster()).then_some(&NO_CIDRS)) else {
                continue;
            };
            self.filled.insert(*profile);
            dataplane.cidrs_set(*profile, &plan_cidrs(cluster, &self.nodes, key))?;
            self.written.insert(*profile, key.clone());
        }
        Ok(())
    }

    /// Empties the profiles that no NIC refers to any more; a predecessor's too.
    fn drop_profiles(&mut self) -> Result<(), DataplaneError> {
        let Some(dataplane) = &mut self.dataplane else { return Ok(()) };
        let mut used: BTreeSet<u16> = self.inventory.profiles().into_keys().collect();
        used.extend(self.inventory.strangers.values());
        for profile in self.filled.difference(&used) {
            dataplane.cidrs_remove_profile(*profile)?;
            self.written.remove(profile);
        }
        self.filled.retain(|profile| used.contains(profile));
        Ok(())
    }
}

static NO_CIDRS: ClusterCidrs = ClusterCidrs { service: Vec::new(), pod: Vec::new(), hijack: Vec::new() };

#[cfg(test)]
mod tests;
