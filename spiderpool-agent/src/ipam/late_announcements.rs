//! Addresses that neighbors are told of when a virtual machine has moved to its pod: until then they know those of the pod that
//! it moves from.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use spiderpool_core::names::PodUid;

use crate::announce::Announcement;

/// By pod.
#[derive(Debug, Default)]
pub(super) struct LateAnnouncements(Mutex<HashMap<PodUid, Vec<Announcement>>>);

impl LateAnnouncements {
    /// Of another NIC, or of the same one in a newer sandbox.
    pub(super) fn add(&self, pod: &PodUid, announcement: Announcement) {
        self.with(|all| {
            let of_pod = all.entry(pod.clone()).or_default();
            of_pod.retain(|known| !known.is_of_same_nic(&announcement));
            of_pod.push(announcement);
        });
    }

    /// The machine has moved to the pod: sends them.
    pub(super) fn send(&self, pod: &PodUid) {
        let due = self.take(pod);
        // Nobody waits for it.
        drop(tokio::task::spawn_blocking(move || due.iter().for_each(Announcement::send)));
    }

    /// It has not, and never will.
    pub(super) fn forget(&self, pod: &PodUid) {
        self.take(pod);
    }

    fn take(&self, pod: &PodUid) -> Vec<Announcement> {
        self.with(|all| all.remove(pod)).unwrap_or_default()
    }

    fn with<T>(&self, f: impl FnOnce(&mut HashMap<PodUid, Vec<Announcement>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
