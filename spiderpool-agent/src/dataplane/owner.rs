//! Programs, maps and inventory, kept in agreement. Everything here blocks; it runs on one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::{Attachment, NicId, RegisterNics, RegisteredNics, RouteHints};
use spiderpool_dataplane::{Dataplane, LoadError, MapError, Sizes};
use spiderpool_net::netns::{NetNs, NetNsError};
use spiderpool_runtime::health::Condition;
use thiserror::Error;
use tracing::{debug, error, info, warn};

use super::attach::{self, AttachError};
use super::cidrs::{ClusterCidrs, ProfileKey, plan_cidrs};
use super::entries::entries;
use super::inventory::{Inventory, InventoryError, PodRecord, Retired};
use super::metrics::{DataplaneMetrics, Growth};
use super::state_file::{self, StateFileError};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The eBPF object.
    pub object: PathBuf,
    /// Where programs and maps are pinned.
    pub pin_dir: PathBuf,
    /// The inventory's file.
    pub state: PathBuf,
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
    /// The inventory cannot be written.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// A map cannot be written.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The pod's namespace cannot be worked on.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Keeps programs, maps and inventory in agreement.
pub struct Owner {
    settings: Settings,
    metrics: DataplaneMetrics,
    growth: Growth,
    loaded: Condition,
    dataplane: Option<Dataplane>,
    failure: String,
    inventory: Inventory,
    /// Ids that the maps know and the inventory does not: their pods may still run, so they are left alone.
    strangers: BTreeSet<u16>,
    cluster: Option<ClusterCidrs>,
    nodes: Vec<IpAddr>,
    /// Profiles as they were last written.
    written: BTreeMap<u16, ProfileKey>,
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
            strangers: BTreeSet::new(),
            cluster: None,
            nodes: Vec::new(),
            written: BTreeMap::new(),
        }
    }

    /// Expires flows and reads counters; loads what is not loaded.
    pub fn sweep(&mut self) {
        if self.dataplane.is_none() {
            self.load();
        }
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

    fn count(&self) {
        self.metrics.nics.set(i64::try_from(self.inventory.ids().len()).unwrap_or(i64::MAX));
    }

    fn load(&mut self) {
        match self.try_load() {
            Ok(()) => {
                self.failure.clear();
                self.loaded.met();
            }
            Err(error) => {
                let text = error.to_string();
                if text != self.failure {
                    error!(error = text, "eBPF dataplane cannot be loaded, trying again");
                }
                self.loaded.unmet(&text);
                self.failure = text;
            }
        }
    }

    fn try_load(&mut self) -> Result<(), LoadError> {
        let Settings { object, pin_dir, .. } = &self.settings;
        let mut dataplane = Dataplane::load(object, pin_dir, &Sizes::default())?;
        info!(pins = %pin_dir.display(), replaced = ?dataplane.replaced(), "eBPF dataplane loaded");
        follow_logs(&mut dataplane);
        self.dataplane = Some(dataplane);
        self.recover();
        Ok(())
    }

    /// After a restart: takes the pods that are still there back into service, and drops the others.
    fn recover(&mut self) {
        let known = match state_file::read(&self.settings.state) {
            Ok(known) => known,
            Err(error) => {
                error!(%error, "inventory is lost, NICs that the maps know are left as they are");
                None
            }
        };
        let lost = known.is_none();
        self.inventory = known.unwrap_or_default();
        let in_maps = self.ids_in_maps();
        if lost {
            self.strangers = in_maps;
            return;
        }
        let mut retired =
            Retired { nics: in_maps.difference(&self.inventory.ids()).copied().collect(), pods: vec![] };
        let pods: Vec<PodRecord> = self.inventory.pods().cloned().collect();
        for pod in &pods {
            match self.serve_again(pod) {
                Ok(true) => {}
                Ok(false) => {
                    let gone = self.inventory.remove(&pod.container_id);
                    retired.nics.extend(gone.nics);
                    retired.pods.extend(gone.pods);
                }
                Err(error) => {
                    error!(%error, container = pod.container_id, pod = pod.pod_name, "pod cannot be served again");
                }
            }
        }
        info!(pods = pods.len(), dropped = retired.pods.len(), "inventory compared with the kernel");
        let outcome = self.retire(&retired).and_then(|()| self.save());
        if let Err(error) = outcome {
            error!(%error, "what is gone cannot be removed");
        }
        self.count();
    }

    fn ids_in_maps(&self) -> BTreeSet<u16> {
        let nics = self.dataplane.as_ref().map(Dataplane::nics);
        match nics {
            Some(Ok(nics)) => nics.into_iter().map(|(id, _)| id).collect(),
            Some(Err(error)) => {
                error!(%error, "map nics cannot be listed");
                BTreeSet::new()
            }
            None => BTreeSet::new(),
        }
    }

    /// `false`: its namespace is gone.
    fn serve_again(&mut self, pod: &PodRecord) -> Result<bool, DataplaneError> {
        let Some(netns) = attach::open(pod)? else { return Ok(false) };
        self.put_entries(pod)?;
        if let Some(dataplane) = &self.dataplane {
            attach::attach(&netns, pod, dataplane.programs())?;
        }
        Ok(true)
    }

    fn put_entries(&mut self, pod: &PodRecord) -> Result<(), DataplaneError> {
        let dataplane =
            self.dataplane.as_mut().ok_or_else(|| DataplaneError::NotLoaded(self.failure.clone()))?;
        for (id, entry) in entries(pod) {
            dataplane.nic_put(id, &entry)?;
        }
        Ok(())
    }

    /// Takes a registration in: first on disk, then in the maps, so that no id is ever in use and unknown.
    pub fn register(&mut self, request: &RegisterNics) -> Result<RegisteredNics, DataplaneError> {
        let Some(dataplane) = &self.dataplane else {
            return Err(DataplaneError::NotLoaded(self.failure.clone()));
        };
        if request.steer.is_none() && self.cluster.is_none() {
            return Err(DataplaneError::NoCluster);
        }
        let identity = attach::identity(&NetNs::open(&request.netns)?)?;
        let max_id = dataplane.max_id();
        let before = self.inventory.clone();
        let retired = self.inventory.register(request, identity, &self.strangers, max_id)?;
        if let Err(error) = self.save() {
            self.inventory = before;
            return Err(error);
        }
        self.retire(&retired)?;
        self.write_profiles()?;
        let pod = self.inventory.pod(&request.attachment.container_id).cloned();
        let pod = pod.ok_or(DataplaneError::Stopped)?;
        self.put_entries(&pod)?;
        self.count();
        debug!(container = pod.container_id, pod = pod.pod_name, id = pod.id(), "NICs registered");
        let wanted = |name| request.nics.iter().any(|nic| nic.name == name);
        let nics = pod.nics.iter().filter(|record| wanted(record.nic.name.clone()));
        Ok(RegisteredNics {
            nics: nics.map(|record| NicId { name: record.nic.name.clone(), id: record.id }).collect(),
            programs: self.settings.pin_dir.display().to_string(),
        })
    }

    /// Takes an attachment out: first of the maps, then of the disk.
    pub fn unregister(&mut self, attachment: &Attachment) -> Result<(), DataplaneError> {
        let retired = self.inventory.unregister(attachment);
        self.retire(&retired)?;
        if let Some(pod) = self.inventory.pod(&attachment.container_id).cloned() {
            self.put_entries(&pod)?;
        }
        self.write_profiles()?;
        self.count();
        self.save()
    }

    fn retire(&mut self, retired: &Retired) -> Result<(), DataplaneError> {
        let Some(dataplane) = &mut self.dataplane else { return Ok(()) };
        for id in &retired.nics {
            if let Ok(stats) = dataplane.stats(*id) {
                self.growth.add(&self.metrics, *id, &stats);
            }
            dataplane.nic_remove(*id)?;
            self.growth.forget(*id);
        }
        for pod in &retired.pods {
            dataplane.pod_flush(*pod)?;
        }
        Ok(())
    }

    fn save(&self) -> Result<(), DataplaneError> {
        Ok(state_file::write(&self.settings.state, &self.inventory)?)
    }

    /// SpiderCoordinator has changed.
    pub fn set_cluster(&mut self, cidrs: ClusterCidrs) {
        if self.cluster.as_ref() != Some(&cidrs) {
            info!(service = ?cidrs.service, pod = ?cidrs.pod, hijack = ?cidrs.hijack, "cluster CIDRs changed");
            self.cluster = Some(cidrs);
            self.renew();
        }
    }

    /// The node's addresses have changed.
    pub fn set_nodes(&mut self, addresses: Vec<IpAddr>) {
        if self.nodes != addresses {
            info!(?addresses, "node addresses changed");
            self.nodes = addresses;
            self.renew();
        }
    }

    /// Carries new destinations into the maps first, then into the pods' routes.
    fn renew(&mut self) {
        self.written.clear();
        if let Err(error) = self.write_profiles() {
            error!(%error, "CIDRs cannot be written");
        }
        let pods: Vec<PodRecord> = self.inventory.pods().cloned().collect();
        for pod in &pods {
            if let Err(error) = self.renew_hints(pod) {
                warn!(%error, container = pod.container_id, pod = pod.pod_name, "route hints cannot be renewed");
            }
        }
    }

    fn renew_hints(&self, pod: &PodRecord) -> Result<(), DataplaneError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        if pod.attachments.iter().any(|attachment| attachment.route_hints == RouteHints::Never) {
            return Ok(());
        }
        let Some(netns) = attach::open(pod)? else { return Ok(()) };
        let own: Option<Vec<IpNet>> = pod.attachments.iter().find_map(|attachment| attachment.steer.clone());
        let cidrs = own.unwrap_or_else(|| cluster.all().collect());
        let changed = attach::refresh_hints(&netns, pod, &cidrs, &self.nodes)?;
        if changed > 0 {
            info!(container = pod.container_id, pod = pod.pod_name, changed, "route hints renewed");
        }
        Ok(())
    }

    /// Makes the CIDRs of every profile in use what they should be, and empties those that are not.
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
            dataplane.cidrs_set(*profile, &plan_cidrs(cluster, &self.nodes, key))?;
            self.written.insert(*profile, key.clone());
        }
        let unused: Vec<u16> =
            self.written.keys().filter(|profile| !wanted.contains_key(profile)).copied().collect();
        for profile in unused {
            dataplane.cidrs_remove_profile(profile)?;
            self.written.remove(&profile);
        }
        Ok(())
    }
}

static NO_CIDRS: ClusterCidrs = ClusterCidrs { service: Vec::new(), pod: Vec::new(), hijack: Vec::new() };

/// Hands on what the programs say, on a thread of its own that ends with the ring buffer.
fn follow_logs(dataplane: &mut Dataplane) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    let Some(mut logs) = dataplane.take_logs() else { return };
    let follow = move || {
        loop {
            let mut ready = [PollFd::new(logs.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => logs.flush(),
                Err(error) => return error!(%error, "log of the programs cannot be read"),
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("bpf-log".to_owned()).spawn(follow) {
        error!(%error, "log of the programs is not followed");
    }
}
