//! Whether another pod that is to have a pod's addresses will come: by the StatefulSet or virtual machine as it is now.

use std::sync::Arc;

use spiderpool_api::endpoint::Lifetime;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::{KeptWorkloads, Owner, Successor};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::successors::read_successor;
use spiderpool_runtime::virtual_machines::{Lookup, read_instance};
use tracing::warn;

use crate::watches::Pod;

/// Asks for them. Cheap to clone.
#[derive(Clone)]
pub(super) struct Successors {
    kube: Kubernetes,
    kept: KeptWorkloads,
}

impl Successors {
    /// By this connection. Pods of other workloads than these have no successor.
    pub(super) fn new(kube: Kubernetes, kept: KeptWorkloads) -> Self {
        Self { kube, kept }
    }

    /// Whether the pods of a workload leave their addresses to the next one.
    pub(super) fn keeps_for(&self, top: &OwnerRef) -> bool {
        self.kept.stateful_sets && top.is_stateful_set()
            || self.kept.virtual_machines && top.is_virtual_machine_instance()
    }

    /// How long what this owner holds, with this workload at the top, is recorded.
    pub(super) fn lifetime(&self, top: &OwnerRef, owner: &Owner) -> Lifetime {
        let of_machine = self.kept.virtual_machines && owner.virtual_machine.is_some();
        if of_machine || self.kept.stateful_sets && top.is_stateful_set() {
            Lifetime::Name
        } else {
            Lifetime::Pod
        }
    }

    /// The virtual machine that a pod's addresses stay with. Anybody who may create pods can write another one's name into
    /// their owner: the API server is asked for the instance, and the UID must be the one that the pod names.
    pub(super) async fn machine(&self, pod: &Pod, top: &OwnerRef) -> Result<Option<Arc<str>>, ApiFailure> {
        if !self.kept.virtual_machines || !top.is_virtual_machine_instance() {
            return Ok(None);
        }
        let namespace = pod.identity.name.namespace();
        let found = match read_instance(&self.kube, namespace, &top.name).await? {
            Lookup::Found(instance) if instance.metadata.uid.as_ref() == Some(&top.uid) => {
                return Ok(Some(top.name.as_str().into()));
            }
            Lookup::Found(_) => "the VirtualMachineInstance of this name has another UID",
            Lookup::Missing => "there is no such VirtualMachineInstance",
            Lookup::NotServed => "the API server does not serve kubevirt.io/v1",
        };
        let (pod, machine, uid) = (&pod.identity, &top.name, &top.uid);
        warn!(%pod, machine, uid, found, "the pod is not the virtual machine's that it names: its addresses are its own");
        Ok(None)
    }

    /// Of the pod that holds something.
    pub(super) async fn of(&self, owner: &Owner) -> Result<Successor, ApiFailure> {
        read_successor(&self.kube, owner, self.kept).await
    }
}
