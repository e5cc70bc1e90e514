//! Removes what the maps have of NICs and pods that are gone, all of them in one pass, a slice at a time.

use std::time::Instant;

use spiderpool_dataplane::MapError;
use tracing::error;

use super::Loaded;
use crate::pod_network::{Inventory, ReservedId};

impl Loaded {
    /// Removes the NICs of retiring ids, and begins to remove the flows of retiring pods. While that goes on nothing else begins.
    pub(crate) fn begin_removal(&mut self, inventory: &Inventory) {
        if self.removing.is_some() {
            return;
        }
        let (mut removing, mut pods) = (Vec::new(), std::collections::BTreeSet::new());
        for (id, why) in inventory.retiring() {
            match self.remove_nic(id) {
                Ok(()) => removing.push(id),
                Err(error) => {
                    error!(%error, nic_id = id, "entries of a NIC that is gone cannot be removed, trying again");
                    continue;
                }
            }
            if why == ReservedId::RetiringPod {
                pods.insert(id);
            }
        }
        if !pods.is_empty() {
            self.maps.begin_flush(pods);
        }
        self.removing = Some(removing);
    }

    /// Empties the entries of retiring ids, before a profile that they name is another pod's: where filters are still attached their
    /// programs do nothing any more. What fails is tried again by [`Self::begin_removal`].
    pub(crate) fn empty_retiring(&mut self, inventory: &Inventory) {
        for (id, _) in inventory.retiring() {
            if matches!(self.maps.nic(id), Ok(Some(_)))
                && let Err(error) = self.remove_nic(id)
            {
                error!(%error, nic_id = id, "entries of a NIC that is gone cannot be removed, trying again");
            }
        }
    }

    fn remove_nic(&mut self, id: u16) -> Result<(), MapError> {
        if let Ok(stats) = self.maps.stats(id) {
            self.deltas.add(&self.metrics, id, &stats);
        }
        self.deltas.forget(id);
        self.reach.forget(id);
        self.maps.nic_remove(id)
    }

    /// Whether a removal has begun and not ended.
    pub(crate) const fn is_removing(&self) -> bool {
        self.removing.is_some()
    }

    /// Goes on with a removal until then, or a little longer. Answers, at its end, the ids of which the maps have nothing any more;
    /// those of what fails are retired still.
    pub(crate) fn remove_until(&mut self, until: Instant) -> Option<Vec<u16>> {
        self.removing.as_ref()?;
        match self.maps.flush_until(until) {
            Ok(false) => None,
            Ok(true) => self.removing.take(),
            Err(error) => {
                error!(%error, "flows of pods that are gone cannot be removed, trying again");
                self.removing = None;
                Some(Vec::new())
            }
        }
    }
}
