//! KubeVirt's objects, reduced while they are decoded to what says which pods a virtual machine has.

use std::collections::BTreeMap;

use kube::core::{
    ApiResource, DynamicObject, GroupVersionKind, NotUsed, Object, ObjectMeta, PartialObjectMeta,
};
use kube::{Api, Client};
use serde::Deserialize;
use spiderpool_core::ipam::virtual_machine::{self, InstancePlace, InstanceState, Migration};
use spiderpool_core::names::PodUid;

use crate::pod::controller;

/// A VirtualMachineInstance as it is decoded.
pub type InstanceObject = Object<NotUsed, InstanceStatus>;
/// A VirtualMachine as it is decoded.
pub type MachineObject = Object<NotUsed, NotUsed>;
/// A VirtualMachineInstanceMigration as it is decoded.
pub type MigrationObject = Object<MigrationSpec, MigrationStatus>;

/// What is read of the status of a VirtualMachineInstance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceStatus {
    node_name: String,
    /// UIDs of its pods, and their nodes.
    active_pods: Option<BTreeMap<String, String>>,
}

/// What is read of the spec of a VirtualMachineInstanceMigration.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MigrationSpec {
    vmi_name: String,
}

/// What is read of its status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct MigrationStatus {
    phase: String,
}

/// The kind of a virtual machine: of what it is, or of what runs of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineKind {
    /// VirtualMachine.
    Machine,
    /// VirtualMachineInstance.
    Instance,
}

impl MachineKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Machine => virtual_machine::MACHINE,
            Self::Instance => virtual_machine::INSTANCE,
        }
    }

    fn resource(self) -> ApiResource {
        match self {
            Self::Machine => resource(self.as_str(), "virtualmachines"),
            Self::Instance => resource(self.as_str(), "virtualmachineinstances"),
        }
    }

    /// The metadata of those of all namespaces.
    pub fn all_metadata(self, client: Client) -> Api<PartialObjectMeta<DynamicObject>> {
        Api::all_with(client, &self.resource())
    }
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk(virtual_machine::GROUP, "v1", kind);
    ApiResource::from_gvk_with_plural(&kind, plural)
}

/// The VirtualMachineInstances of a namespace.
pub fn instances(client: Client, namespace: &str) -> Api<InstanceObject> {
    Api::namespaced_with(client, namespace, &MachineKind::Instance.resource())
}

/// The VirtualMachines of a namespace.
pub fn machines(client: Client, namespace: &str) -> Api<MachineObject> {
    Api::namespaced_with(client, namespace, &MachineKind::Machine.resource())
}

/// The VirtualMachineInstanceMigrations of a namespace.
pub fn migrations(client: Client, namespace: &str) -> Api<MigrationObject> {
    let resource = resource("VirtualMachineInstanceMigration", "virtualmachineinstancemigrations");
    Api::namespaced_with(client, namespace, &resource)
}

/// Whether a VirtualMachine controls an instance with this metadata.
pub fn is_of_machine(meta: &ObjectMeta) -> bool {
    controller(meta).is_some_and(|owner| owner.is_virtual_machine())
}

/// What an instance says of its pods, to one that asks for this pod.
pub fn state(instance: &InstanceObject, asking: &PodUid) -> InstanceState {
    let pods = instance.status.iter().flat_map(|status| status.active_pods.iter().flatten());
    InstanceState {
        terminating: instance.metadata.deletion_timestamp.is_some(),
        of_machine: is_of_machine(&instance.metadata),
        has_other_pods: pods.into_iter().any(|(uid, _)| uid != asking.as_str()),
    }
}

/// Where an instance runs.
pub fn place(instance: &InstanceObject) -> InstancePlace {
    let node = instance.status.as_ref().map(|status| status.node_name.clone());
    InstancePlace { uid: instance.metadata.uid.clone().unwrap_or_default(), node: node.unwrap_or_default() }
}

/// What a migration says.
pub fn migration(object: &MigrationObject) -> Migration {
    let phase = object.status.as_ref().map(|status| status.phase.as_str());
    let is_final = phase.is_some_and(|phase| ["Succeeded", "Failed"].contains(&phase));
    Migration {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        instance: object.spec.vmi_name.clone(),
        is_over: is_final || object.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn instance(owner: Option<&str>, status: &Value) -> InstanceObject {
        let owners: Vec<_> = owner
            .into_iter()
            .map(|api_version| json!({"apiVersion": api_version, "kind": "VirtualMachine", "name": "db", "uid": "m", "controller": true}))
            .collect();
        let metadata = json!({"name": "db", "namespace": "n", "uid": "i", "ownerReferences": owners});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"domain": {}}, "status": status}))
            .unwrap()
    }

    #[test]
    fn an_instance_says_which_pods_it_has_and_where_it_runs() {
        let uid: PodUid = "u".parse().unwrap();
        let status = json!({"phase": "Running", "nodeName": "n1", "activePods": {"u": "n1"}});
        let alone = instance(Some("kubevirt.io/v1"), &status);
        let InstanceState { terminating, of_machine, has_other_pods } = state(&alone, &uid);
        assert!(!terminating && of_machine && !has_other_pods);
        assert_eq!(place(&alone), InstancePlace { uid: "i".to_owned(), node: "n1".to_owned() });
        let moving = instance(Some("example.com/v1"), &json!({"activePods": {"u": "n1", "v": "n2"}}));
        let InstanceState { of_machine, has_other_pods, .. } = state(&moving, &uid);
        assert!(!of_machine && has_other_pods);
        let new = instance(None, &json!({"activePods": null}));
        assert!(!state(&new, &uid).has_other_pods && place(&new).node.is_empty());
    }

    #[test]
    fn a_migration_is_over_in_its_last_phases() {
        let with = |phase: Value| {
            let object = json!({"metadata": {"uid": "x"}, "spec": {"vmiName": "db"}, "status": phase});
            migration(&serde_json::from_value(object).unwrap())
        };
        for (phase, is_over) in
            [("Pending", false), ("Running", false), ("Succeeded", true), ("Failed", true)]
        {
            let expect = Migration { uid: "x".to_owned(), instance: "db".to_owned(), is_over };
            assert_eq!(with(json!({"phase": phase})), expect);
        }
        assert!(!with(Value::Null).is_over);
    }
}
