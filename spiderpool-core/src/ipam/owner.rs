//! The workload at the top of a pod: Deployment over ReplicaSet, CronJob over Job, or whatever owns it.

use super::holding::Workload;
use super::{stateful_set, virtual_machine};

/// An owner reference with `controller: true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerRef {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`.
    pub kind: String,
    /// Its name, in the pod's namespace.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl OwnerRef {
    /// Whether it is a StatefulSet of Kubernetes: others are called so, too.
    pub fn is_stateful_set(&self) -> bool {
        self.api_version.starts_with("apps/") && self.kind == stateful_set::KIND
    }

    /// Whether it is a virtual machine of KubeVirt that runs.
    pub fn is_virtual_machine_instance(&self) -> bool {
        self.is_of(virtual_machine::INSTANCE)
    }

    /// Whether it is the definition of one, which makes the instance.
    pub fn is_virtual_machine(&self) -> bool {
        self.is_of(virtual_machine::MACHINE)
    }

    fn is_of(&self, kind: &str) -> bool {
        self.api_version.split_once('/').is_some_and(|(group, _)| group == virtual_machine::GROUP)
            && self.kind == kind
    }
}

impl From<&OwnerRef> for Workload {
    fn from(owner: &OwnerRef) -> Self {
        Self { kind: owner.kind.as_str().into(), name: owner.name.as_str().into() }
    }
}

/// What is known after looking at one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerStep {
    /// The workload at the top.
    Top(OwnerRef),
    /// This object may have an owner: fetch it, then ask [`above`].
    Fetch(OwnerRef),
}

/// The first step: what controls the pod. A pod without controller is its own top.
pub fn of_pod(pod_name: &str, pod_uid: &str, controller: Option<OwnerRef>) -> OwnerStep {
    let Some(owner) = controller else {
        return OwnerStep::Top(OwnerRef {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: pod_name.into(),
            uid: pod_uid.into(),
        });
    };
    match (owner.api_version.as_str(), owner.kind.as_str()) {
        ("apps/v1", "ReplicaSet") | ("batch/v1", "Job") => OwnerStep::Fetch(owner),
        _ => OwnerStep::Top(owner),
    }
}

/// The second step: the fetched object, or what controls it if that is the workload of its kind.
pub fn above(fetched: OwnerRef, controller: Option<OwnerRef>) -> OwnerRef {
    match controller {
        Some(owner) if is_workload_over(&owner, &fetched) => owner,
        _ => fetched,
    }
}

fn is_workload_over(owner: &OwnerRef, owned: &OwnerRef) -> bool {
    matches!(
        (owned.kind.as_str(), owner.api_version.as_str(), owner.kind.as_str()),
        ("ReplicaSet", "apps/v1", "Deployment") | ("Job", "batch/v1", "CronJob")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(api_version: &str, kind: &str) -> OwnerRef {
        OwnerRef {
            api_version: api_version.into(),
            kind: kind.into(),
            name: kind.to_lowercase(),
            uid: "u".into(),
        }
    }

    #[test]
    fn pods_and_their_controllers() {
        let step = |o: &OwnerRef| of_pod("p", "u", Some(o.clone()));
        assert!(
            matches!(of_pod("p", "u", None), OwnerStep::Top(top) if top.kind == "Pod" && top.name == "p")
        );
        for fetched in [owner("apps/v1", "ReplicaSet"), owner("batch/v1", "Job")] {
            assert_eq!(step(&fetched), OwnerStep::Fetch(fetched));
        }
        for top in [
            owner("apps/v1", "StatefulSet"),
            owner("apps/v1", "DaemonSet"),
            owner("kubevirt.io/v1", "VirtualMachineInstance"),
            owner("apps.kruise.io/v1alpha1", "ReplicaSet"),
            owner("v1", "ReplicationController"),
        ] {
            assert_eq!(step(&top), OwnerStep::Top(top));
        }
    }

    #[test]
    fn stateful_sets_are_those_of_kubernetes() {
        assert!(owner("apps/v1", "StatefulSet").is_stateful_set());
        assert!(!owner("apps.kruise.io/v1beta1", "StatefulSet").is_stateful_set());
        assert!(!owner("apps/v1", "DaemonSet").is_stateful_set());
    }

    #[test]
    fn virtual_machines_are_those_of_kubevirt() {
        assert!(owner("kubevirt.io/v1", "VirtualMachineInstance").is_virtual_machine_instance());
        assert!(owner("kubevirt.io/v1", "VirtualMachine").is_virtual_machine());
        assert!(!owner("kubevirt.io/v1", "VirtualMachine").is_virtual_machine_instance());
        for group in ["clone.kubevirt.io/v1", "kubevirt.io.example.com/v1", "v1"] {
            assert!(!owner(group, "VirtualMachineInstance").is_virtual_machine_instance(), "{group}");
        }
    }

    #[test]
    fn only_the_workload_of_its_kind_is_above() {
        let set = owner("apps/v1", "ReplicaSet");
        assert_eq!(above(set.clone(), None), set);
        assert_eq!(above(set.clone(), Some(owner("apps/v1", "Deployment"))).kind, "Deployment");
        assert_eq!(above(set.clone(), Some(owner("argoproj.io/v1alpha1", "Rollout"))), set);
        assert_eq!(above(owner("batch/v1", "Job"), Some(owner("batch/v1", "CronJob"))).kind, "CronJob");
    }
}
