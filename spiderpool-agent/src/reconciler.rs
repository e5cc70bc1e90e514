//! Reconciles pods' network namespaces and the eBPF dataplane with registrations and destinations.
//!
//! The namespaces do not wait for programs and maps, which a node may not be able to load. One thread does all of it, in
//! the order of the requests; [`Handle`] sends them.

mod checks;
mod error;
mod handle;
mod removals;
mod repetition;
mod reported;
mod restore;
mod slices;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::{Attachment, NicId, RegisterNics, RegisteredNics};
use spiderpool_core::dataplane::PodDevice;
use spiderpool_core::gc::{SandboxNic, ValidAttachments, plan_attachment_gc};
use tracing::{debug, error, info, warn};

use crate::dataplane::{EbpfDataplane, LoadFailure, Loaded};
use crate::destinations::{Destinations, Update};
use crate::pod_network::{
    Inventory, InventoryError, NicRecord, PodNetworks, PodRecord, Removed, netns, node_link,
};

use crate::node_events::NodeEvents;
use checks::Checks;
pub use error::RegistrationError;
pub use handle::{Handle, start};
use removals::Removals;
use repetition::Repetition;
use reported::Reported;

/// Both sides, and the destinations. Everything here blocks.
#[derive(Debug)]
struct Reconciler {
    pods: PodNetworks,
    ebpf: EbpfDataplane,
    destinations: Destinations,
    /// `None` until they are listed: what the maps have stays.
    pod_devices: Option<BTreeMap<u32, PodDevice>>,
    checks: Checks,
    repetition: Repetition,
    events: NodeEvents,
    removals: Removals,
}

impl Reconciler {
    /// Nothing is read or loaded before the first [`Reconciler::resync`].
    fn new(pods: PodNetworks, ebpf: EbpfDataplane, events: NodeEvents, reported: Reported) -> Self {
        Self {
            pods,
            ebpf,
            destinations: Destinations::default(),
            pod_devices: None,
            checks: Checks::new(reported),
            repetition: Repetition::default(),
            events,
            removals: Removals::default(),
        }
    }

    /// What is done every few seconds: retries, deletion of idle node links; and what [`Self::go_on`] goes on with: expiry of flows,
    /// counters, removal of what is gone.
    fn resync(&mut self) {
        self.pods.delete_idle_links();
        let newly_loaded = self.ebpf.loaded().is_err() && self.load();
        let completed = self.pods.verify(&self.destinations);
        let Ok(inventory) = self.pods.inventory() else { return };
        let Ok(loaded) = self.ebpf.loaded() else { return };
        if newly_loaded {
            write_devices(loaded, self.pod_devices.as_ref());
        }
        loaded.attach_pods(inventory);
        if !inventory.retiring().is_empty() {
            self.removals.want();
        }
        if (newly_loaded || completed)
            && let Err(error) = loaded.rewrite_profiles(inventory, &self.destinations)
        {
            error!(%error, "CIDRs cannot be written");
        }
        loaded.restore_pins();
        loaded.begin_sweep();
    }

    /// Tries to load programs and maps; whether they are loaded.
    fn load(&mut self) -> bool {
        let outcome = self.try_load().map_err(|error| match error {
            RegistrationError::Dataplane(error) => LoadFailure::Programs(error.to_string()),
            error => LoadFailure::Other(error.to_string()),
        });
        self.ebpf.finish(outcome);
        self.ebpf.loaded().is_ok()
    }

    fn try_load(&mut self) -> Result<Loaded, RegistrationError> {
        // Not before the inventory is known, or known to be lost: whatever is written would take its place.
        let inventory = self.pods.inventory()?;
        let (loaded, found, origin) = self.ebpf.load()?;
        inventory.compare(&found, origin);
        debug!(found = found.len(), orphaned = inventory.orphaned(), "inventory compared with the maps");
        self.pods.save()?;
        Ok(loaded)
    }

    /// New destinations: carries them into the maps first, then into the pods' namespaces.
    fn update(&mut self, update: Update) {
        if !self.destinations.apply(update) {
            return;
        }
        if let (Ok(inventory), Ok(loaded)) = (self.pods.inventory(), self.ebpf.loaded())
            && let Err(error) = loaded.rewrite_profiles(inventory, &self.destinations)
        {
            error!(%error, "CIDRs cannot be written");
        }
        self.pods.reconcile(&self.destinations);
    }

    /// The devices by which pods send have changed.
    fn set_pod_devices(&mut self, devices: BTreeMap<u32, PodDevice>) {
        self.pod_devices = Some(devices);
        if let Ok(loaded) = self.ebpf.loaded() {
            write_devices(loaded, self.pod_devices.as_ref());
        }
    }

    /// Takes a registration in: first on disk, then in the maps, so that no id is ever in use and unknown.
    fn register(&mut self, request: &RegisterNics) -> Result<RegisteredNics, RegistrationError> {
        check_addresses(request, &self.destinations)?;
        let programs = self.ebpf.settings().pin_dir.display().to_string();
        let max_id = self.ebpf.loaded()?.max_id();
        if request.own_cidrs.needs_cluster() && self.destinations.cluster.is_none() {
            return Err(RegistrationError::NoCluster);
        }
        let container_id = &request.attachment.container_id;
        self.pods.node_link_is_used(container_id);
        self.checks.registered(container_id.clone(), Instant::now());
        let netns = netns::of_request(Path::new(&request.netns), request.open_netns.as_ref())?;
        let identity = netns::identity(&netns)?;
        let mut next = self.pods.inventory()?.clone();
        let mut registered = next.register(request, identity, max_id);
        if matches!(registered, Err(InventoryError::Full(_))) && !next.retiring().is_empty() {
            // Some are about to be free.
            self.removals.want();
            self.finish_removals();
            next = self.pods.inventory()?.clone();
            registered = next.register(request, identity, max_id);
        }
        let pod = registered?;
        Loaded::check(&pod)?;
        let inventory = self.pods.commit(next)?;
        if !inventory.retiring().is_empty() {
            self.removals.want();
        }
        let loaded = self.ebpf.loaded()?;
        write(loaded, inventory, &self.destinations, Some(&pod))?;
        debug!(container_id = %pod.container_id, pod = %pod.pod, uid = ?pod.pod_uid, id = pod.id(), "NICs registered");
        let is_requested = |record: &&NicRecord| request.nics.iter().any(|nic| nic.name == record.nic.name);
        let nics = pod.nics.iter().filter(is_requested);
        Ok(RegisteredNics {
            nics: nics.map(|record| NicId { name: record.nic.name.clone(), id: record.id }).collect(),
            programs,
        })
    }

    /// Takes an attachment out. It leaves the maps first and then the disk, by [`Self::go_on`]; where there are no maps its ids stay
    /// reserved.
    fn unregister(&mut self, attachment: &Attachment) -> Result<(), RegistrationError> {
        let container_id = &attachment.container_id;
        let restored = self.checks.is_restored(container_id);
        let inventory = self.pods.inventory()?;
        let pod = inventory.pod(container_id).cloned();
        let removed = inventory.unregister(attachment);
        if removed == Removed::Nothing {
            return Ok(());
        }
        if let Some(before) = pod.as_ref().filter(|_| restored) {
            self.undo_restored(before);
        }
        if removed == Removed::Pod {
            self.checks.unregistered(container_id);
            if let Some(pod) = &pod {
                self.pods.node_link_is_idle(pod);
            }
        }
        let inventory = self.pods.inventory()?;
        let Ok(loaded) = self.ebpf.loaded() else { return Ok(self.pods.save()?) };
        self.removals.want();
        match inventory.pod(container_id).cloned() {
            Some(pod) => write(loaded, inventory, &self.destinations, Some(&pod)),
            None => Ok(()),
        }
    }

    /// Takes out what the container runtime does not know any more: first the registrations, then node links that
    /// nothing uses, and of the others what leads to the NICs that are gone.
    fn collect_garbage(&mut self, valid: &ValidAttachments) -> Result<(), RegistrationError> {
        let inventory = self.pods.inventory()?;
        let registered = inventory.pods().flat_map(|pod| {
            pod.attachments.iter().map(|attachment| {
                let (container_id, nic) = (pod.container_id.clone(), attachment.if_name.clone());
                (attachment.network.as_str(), SandboxNic { container_id, nic })
            })
        });
        for SandboxNic { container_id, nic } in plan_attachment_gc(registered, valid) {
            info!(%container_id, %nic, network = valid.network, "attachment is not valid any more, removing it");
            let pod = self.pods.inventory()?.pod(&container_id).cloned();
            self.unregister(&Attachment {
                container_id: container_id.clone(),
                network: valid.network.clone(),
                if_name: nic.clone(),
            })?;
            if let Some(pod) =
                pod.filter(|_| self.pods.inventory().is_ok_and(|i| i.pod(&container_id).is_some()))
                && let Err(error) = node_link::remove_nic(&pod, &nic)
            {
                warn!(%error, %container_id, %nic, "node link still leads to a NIC that is gone");
            }
        }
        self.pods.delete_idle_links();
        Ok(())
    }
}

fn write_devices(loaded: &mut Loaded, devices: Option<&BTreeMap<u32, PodDevice>>) {
    let Some(devices) = devices else { return };
    if let Err(error) = loaded.set_devices(devices) {
        error!(%error, "devices of pods cannot be written: what pods send to other pods' underlay addresses may be dropped");
    }
}

/// Refuses a NIC with an address of the node, as a static IPAM plugin may give it.
fn check_addresses(request: &RegisterNics, destinations: &Destinations) -> Result<(), RegistrationError> {
    for nic in &request.nics {
        let mut addresses = nic.addresses.iter().map(IpNet::addr);
        if let Some(address) = addresses.find(|address| destinations.nodes.contains(address)) {
            return Err(RegistrationError::NodeAddress { nic: nic.name.clone(), address });
        }
    }
    Ok(())
}

/// Writes a pod whose registration has changed.
fn write(
    loaded: &mut Loaded,
    inventory: &Inventory,
    destinations: &Destinations,
    pod: Option<&PodRecord>,
) -> Result<(), RegistrationError> {
    loaded.empty_retiring(inventory);
    loaded.write_profiles(inventory, destinations)?;
    if let Some(pod) = pod {
        loaded.put_entries(pod)?;
    }
    loaded.drop_profiles(inventory)?;
    loaded.count_nics(inventory);
    Ok(())
}

#[cfg(test)]
mod tests;
