//! The network of this node's pods: which NICs they have registered, and what the agent keeps right in their
//! network namespaces while the cluster and the node change: the node link and the route hints.
//!
//! Knows nothing of programs and maps, and works where they cannot be loaded.

mod host_ends;
mod idle_links;
mod ids;
mod inventory;
pub(crate) mod netns;
pub(crate) mod node_link;
mod profile_key;
mod reconcile;
mod record;
mod restore;
mod route_hints;
pub(crate) mod state_file;
mod verify;

use std::path::{Path, PathBuf};

use spiderpool_core::names::ContainerId;
use spiderpool_net::netns::NetNs;
use tokio::sync::watch;
use tracing::{error, info};

pub(crate) use ids::{FoundNic, ReservedId};
pub use inventory::InventoryError;
pub(crate) use inventory::{Inventory, Removed};
pub use netns::NamespaceError;
pub use profile_key::ProfileKey;
pub(crate) use record::{NicRecord, PodRecord, PodState};
pub(crate) use restore::{PodFound, read_ports};
pub use state_file::StateFileError;

use crate::destinations::Destinations;
pub(crate) use host_ends::HostEnds;
use idle_links::IdleLinks;

/// Where the inventory is kept.
pub fn state_path(folder: &Path) -> PathBuf {
    folder.join("dataplane.json")
}

/// The pods of the node, on disk and in their namespaces. Everything here blocks.
#[derive(Debug)]
pub(crate) struct PodNetworks {
    state_file: PathBuf,
    /// `None` until the state file could be read.
    inventory: Option<Inventory>,
    idle_links: IdleLinks,
    host_ends: watch::Sender<HostEnds>,
}

impl PodNetworks {
    /// Reads nothing yet, see [`Self::inventory`].
    pub(crate) fn new(state_file: PathBuf) -> Self {
        Self {
            state_file,
            inventory: None,
            idle_links: IdleLinks::default(),
            host_ends: watch::Sender::default(),
        }
    }

    /// The host ends of the pods, as they change.
    pub(crate) fn host_ends(&self) -> watch::Receiver<HostEnds> {
        self.host_ends.subscribe()
    }

    fn publish(&self, inventory: &Inventory) {
        self.host_ends.send_replace(HostEnds::of(inventory));
    }

    /// The inventory, read from the state file the first time. Fails as long as that cannot be read; a file that is
    /// missing or no inventory counts as lost.
    pub(crate) fn inventory(&mut self) -> Result<&mut Inventory, StateFileError> {
        let inventory = if let Some(inventory) = self.inventory.take() {
            inventory
        } else {
            let inventory = read(&self.state_file)?;
            self.publish(&inventory);
            inventory
        };
        Ok(self.inventory.insert(inventory))
    }

    /// Replaces the inventory, first on disk: no id is ever in use and unknown after a restart.
    pub(crate) fn commit(&mut self, next: Inventory) -> Result<&mut Inventory, StateFileError> {
        state_file::write(&self.state_file, &next)?;
        self.publish(&next);
        Ok(self.inventory.insert(next))
    }

    /// Writes the inventory as it is; nothing if it has not been read.
    pub(crate) fn save(&self) -> Result<(), StateFileError> {
        let Some(inventory) = &self.inventory else { return Ok(()) };
        self.publish(inventory);
        state_file::write(&self.state_file, inventory)
    }

    /// Finds out which pods of the state file still run, takes out those that are gone, and reads of the others what an
    /// older agent has not written. Whether profiles may have changed by that.
    pub(crate) fn verify(&mut self, destinations: &Destinations) -> bool {
        let Some(inventory) = &mut self.inventory else { return false };
        let verified = verify::verify(inventory, destinations);
        if verified.gone > 0 {
            info!(gone = verified.gone, "pods that are gone are taken out of the inventory");
        }
        if (verified.gone > 0 || verified.completed)
            && let Err(error) = self.save()
        {
            error!(%error, "inventory cannot be written");
        }
        verified.completed
    }

    /// Carries the destinations into the pods' namespaces: node links and route hints.
    pub(crate) fn reconcile(&self, destinations: &Destinations) {
        for pod in self.inventory.iter().flat_map(Inventory::pods) {
            reconcile::reconcile_if_running(pod, destinations);
        }
    }

    /// Looks at a pod that runs; `None` if there is no such pod.
    pub(crate) fn find(&self, container_id: &ContainerId) -> Result<Option<PodFound>, NamespaceError> {
        let pod = self.inventory.as_ref().and_then(|inventory| inventory.pod(container_id));
        let running = pod.filter(|pod| pod.state != PodState::Unverified);
        running.map_or(Ok(None), restore::find)
    }

    /// Removes what leads to the NICs that a pod had `before` and has not any more; answers them, and the pod's
    /// namespace if it is still there.
    pub(crate) fn undo_restored(&self, before: &PodRecord) -> Option<(NetNs, Vec<NicRecord>)> {
        restore::undo(before, self.inventory.as_ref()?.pod(&before.container_id))
    }

    /// The pods that run, and their host ends.
    pub(crate) fn running(&self) -> impl Iterator<Item = &ContainerId> {
        let pods = self.inventory.iter().flat_map(Inventory::pods);
        pods.filter(|pod| pod.state != PodState::Unverified).map(|pod| &pod.container_id)
    }

    /// A pod's last underlay NIC is gone: if the pod still runs at the next [`Self::delete_idle_links`], its node
    /// link is deleted.
    pub(crate) fn node_link_is_idle(&mut self, pod: &PodRecord) {
        self.idle_links.add(pod);
    }

    /// A pod registers a NIC: it needs its node link.
    pub(crate) fn node_link_is_used(&mut self, container_id: &ContainerId) {
        self.idle_links.cancel(container_id);
    }

    /// Deletes the node links that have become idle and were not used since.
    pub(crate) fn delete_idle_links(&mut self) {
        self.idle_links.delete_links();
    }
}

fn read(state_file: &Path) -> Result<Inventory, StateFileError> {
    match state_file::read(state_file) {
        Ok(Some(inventory)) => Ok(inventory),
        Ok(None) => Ok(Inventory::lost()),
        // The inventory may still be there.
        Err(error @ StateFileError::Io { .. }) => Err(error),
        Err(error) => {
            error!(%error, "inventory is lost, NICs that the maps know are left as they are");
            Ok(Inventory::lost())
        }
    }
}

#[cfg(test)]
mod tests;
