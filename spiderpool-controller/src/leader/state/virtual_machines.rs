//! KubeVirt's virtual machines: whether a pod of one that has ended is followed by another one, and which pods they have moved
//! to.

use std::collections::{BTreeSet, HashMap};

use kube::core::{DynamicObject, PartialObjectMeta};
use spiderpool_api::virtual_machine::{MachineKind, is_of_machine};
use spiderpool_core::ipam::Successor;
use spiderpool_core::ipam::virtual_machine::{InstanceState, SuccessorStep, of_instance, of_machine};
use spiderpool_core::names::{PodIdentity, PodName, PodUid};

/// A VirtualMachine or a VirtualMachineInstance as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlimMachine {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) life: MachineLife,
}

/// Whether it makes pods, or instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MachineLife {
    /// It is being deleted.
    pub(super) terminating: bool,
    /// A VirtualMachine controls it.
    pub(super) of_machine: bool,
}

impl From<PartialObjectMeta<DynamicObject>> for SlimMachine {
    fn from(object: PartialObjectMeta<DynamicObject>) -> Self {
        let meta = object.metadata;
        let life =
            MachineLife { terminating: meta.deletion_timestamp.is_some(), of_machine: is_of_machine(&meta) };
        let (namespace, name) = (meta.namespace, meta.name);
        Self { namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default(), life }
    }
}

type Machines = HashMap<String, HashMap<String, MachineLife>>;

/// All virtual machines, as far as they are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct VirtualMachineIndex {
    /// `None` before they are listed, and where the kind is not served.
    machines: Option<Machines>,
    instances: Option<Machines>,
}

impl VirtualMachineIndex {
    /// Whether another pod of the machine will come. What is not known is not taken for absent.
    pub(crate) fn successor(&self, namespace: &str, machine: &str) -> Successor {
        let (Some(machines), Some(instances)) = (&self.machines, &self.instances) else {
            return Successor::Expected;
        };
        let life = |all: &Machines| all.get(namespace)?.get(machine).copied();
        // Which pods an instance has is read from the API server before anything is freed.
        let instance = life(instances).map(|life| InstanceState {
            terminating: life.terminating,
            of_machine: life.of_machine,
            has_other_pods: false,
        });
        match of_instance(instance) {
            SuccessorStep::Known(successor) => successor,
            SuccessorStep::AskMachine => of_machine(life(machines).map(|life| life.terminating)),
        }
    }

    /// Adds or replaces one; whether it says something else than before.
    pub(super) fn insert(&mut self, kind: MachineKind, machine: &SlimMachine) -> bool {
        let Some(all) = self.of_kind(kind).as_mut() else { return false };
        let of_namespace = all.entry(machine.namespace.clone()).or_default();
        of_namespace.insert(machine.name.clone(), machine.life) != Some(machine.life)
    }

    /// Removes one.
    pub(super) fn remove(&mut self, kind: MachineKind, machine: &SlimMachine) {
        let Some(all) = self.of_kind(kind).as_mut() else { return };
        if let Some(of_namespace) = all.get_mut(&machine.namespace) {
            of_namespace.remove(&machine.name);
            if of_namespace.is_empty() {
                all.remove(&machine.namespace);
            }
        }
    }

    /// Only these exist.
    pub(super) fn reset(&mut self, kind: MachineKind, machines: &[SlimMachine]) {
        *self.of_kind(kind) = Some(Machines::new());
        for machine in machines {
            self.insert(kind, machine);
        }
    }

    /// Nobody knows which exist.
    pub(super) fn forget(&mut self, kind: MachineKind) {
        *self.of_kind(kind) = None;
    }

    fn of_kind(&mut self, kind: MachineKind) -> &mut Option<Machines> {
        match kind {
            MachineKind::Machine => &mut self.machines,
            MachineKind::Instance => &mut self.instances,
        }
    }
}

/// Pods that say that virtual machines move to them, or have moved.
#[derive(Debug, Default)]
pub(crate) struct MigrationTargets {
    of_machine: HashMap<PodName, BTreeSet<PodIdentity>>,
    machine_of: HashMap<PodUid, PodName>,
}

impl MigrationTargets {
    /// Those of a machine.
    pub(crate) fn of(&self, machine: &PodName) -> impl Iterator<Item = &PodIdentity> {
        self.of_machine.get(machine).into_iter().flatten()
    }

    /// The pod is there and says so of this machine, or of none.
    pub(super) fn insert(&mut self, pod: &PodIdentity, machine: Option<&PodName>) {
        if self.machine_of.get(&pod.uid) == machine {
            return;
        }
        self.remove(pod);
        if let Some(machine) = machine {
            self.machine_of.insert(pod.uid.clone(), machine.clone());
            self.of_machine.entry(machine.clone()).or_default().insert(pod.clone());
        }
    }

    /// The pod is gone.
    pub(super) fn remove(&mut self, pod: &PodIdentity) {
        let Some(machine) = self.machine_of.remove(&pod.uid) else { return };
        if let Some(pods) = self.of_machine.get_mut(&machine) {
            pods.remove(pod);
            if pods.is_empty() {
                self.of_machine.remove(&machine);
            }
        }
    }

    /// No pod is there.
    pub(super) fn clear(&mut self) {
        self.of_machine.clear();
        self.machine_of.clear();
    }
}
