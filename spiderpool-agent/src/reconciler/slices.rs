//! What takes long on the reconciler's thread is done in slices, between which requests are served: what is gone leaves the maps, all
//! that is queued in one pass, and flows expire.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::RegistrationError;
use super::removals::RemovalAnswer;
use super::{Reconciler, write};

/// How long a request waits for each of the two, and a little longer: for the batch that has begun.
const SLICE: Duration = Duration::from_millis(1);

impl Reconciler {
    /// Whether there is something to go on with.
    pub(super) fn is_busy(&mut self) -> bool {
        let wanted = self.removals.wanted;
        self.ebpf.loaded().is_ok_and(|loaded| wanted || loaded.is_removing() || loaded.is_sweeping())
    }

    /// The result of a removal is sent when the maps have nothing of it any more, and the disk neither.
    pub(super) fn answer(&mut self, result: Result<(), RegistrationError>, answer: RemovalAnswer) {
        let goes_on = self.ebpf.loaded().is_ok_and(|loaded| loaded.is_removing());
        match result {
            Ok(()) if self.removals.wanted => self.removals.next.push(answer),
            // It may be the same one, asked for again.
            Ok(()) if goes_on => self.removals.current.push(answer),
            // The request may have been dropped; what was done stays done.
            result => drop(answer.send(result)),
        }
    }

    /// Does a slice.
    pub(super) fn go_on(&mut self) {
        self.go_on_removing(Instant::now() + SLICE);
        if let (Ok(inventory), Ok(loaded)) = (self.pods.inventory(), self.ebpf.loaded()) {
            loaded.sweep_until(inventory, Instant::now() + SLICE);
        }
    }

    /// Does all that is to be removed.
    pub(super) fn finish_removals(&mut self) {
        while self.ebpf.loaded().is_ok_and(|loaded| loaded.is_removing()) || self.removals.wanted {
            if !self.go_on_removing(Instant::now() + SLICE) {
                return;
            }
        }
    }

    /// Whether it could.
    fn go_on_removing(&mut self, until: Instant) -> bool {
        let (Ok(inventory), Ok(loaded)) = (self.pods.inventory(), self.ebpf.loaded()) else { return false };
        if !loaded.is_removing() && std::mem::take(&mut self.removals.wanted) {
            self.removals.current.append(&mut self.removals.next);
            loaded.begin_removal(inventory);
        }
        let Some(ids) = loaded.remove_until(until) else { return true };
        for id in ids {
            inventory.free(id);
        }
        let written = write(loaded, inventory, &self.destinations, None);
        let saved = self.pods.save();
        // The disk's is the graver one: after a restart the pods are there again.
        let result = saved.map_err(RegistrationError::from).and(written).map_err(Arc::new);
        for answer in std::mem::take(&mut self.removals.current) {
            // As above.
            drop(answer.send(result.clone().map_err(RegistrationError::Removal)));
        }
        true
    }
}
