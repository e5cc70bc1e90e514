//! Whether another pod of a pod's name will come: of a StatefulSet's pod, by the StatefulSet as it is now.

use spiderpool_api::endpoint::Lifetime;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::{Owner, Successor};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::successors::read_successor;

/// Asks for them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Successors {
    kube: Kubernetes,
    is_enabled: bool,
}

impl Successors {
    /// By this connection. Where it is not enabled, no pod has a successor.
    pub(super) fn new(kube: Kubernetes, is_enabled: bool) -> Self {
        Self { kube, is_enabled }
    }

    /// How long what the pods of a workload hold is their own.
    pub(super) fn lifetime(&self, top: &OwnerRef) -> Lifetime {
        if self.is_enabled && top.is_stateful_set() { Lifetime::Name } else { Lifetime::Pod }
    }

    /// Of the pod that holds something.
    pub(super) async fn of(&self, owner: &Owner) -> Result<Successor, ApiFailure> {
        if self.is_enabled { read_successor(&self.kube, owner).await } else { Ok(Successor::None) }
    }
}
