//! The pods that the kernel has reported and that are not looked at yet.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spiderpool_core::names::ContainerId;

/// However often a pod is reported, it is sent to the reconciler once until it has been looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Reported(Arc<Mutex<BTreeSet<ContainerId>>>);

impl Reported {
    /// Whether the pod is to be sent.
    pub(super) fn add(&self, pod: &ContainerId) -> bool {
        let mut reported = self.lock();
        !reported.contains(pod) && reported.insert(pod.clone())
    }

    /// The pod is looked at from now on: what is reported later is another look.
    pub(super) fn remove(&self, pod: &ContainerId) {
        self.lock().remove(pod);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<ContainerId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
