//! KubeVirt's objects as its controllers leave them, on a control plane that has nobody who makes them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Kind};
use crate::poll;

const API_VERSION: &str = "kubevirt.io/v1";
const MACHINE: Kind = Kind(API_VERSION, "VirtualMachine");
const INSTANCE: Kind = Kind(API_VERSION, "VirtualMachineInstance");
const MIGRATION: Kind = Kind(API_VERSION, "VirtualMachineInstanceMigration");
/// How long the API server may take to serve the kinds.
const LIMIT: Duration = Duration::from_secs(30);
/// As KubeVirt has it, an instance that is deleted stays until its pods are gone.
const FINALIZER: &str = "foregroundDeleteVirtualMachine";

/// KubeVirt's objects in a namespace.
#[derive(Debug, Clone, Copy)]
pub struct KubeVirt<'a> {
    plane: &'a ControlPlane,
    namespace: &'a str,
}

/// A VirtualMachineInstance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A VirtualMachineInstanceMigration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl<'a> KubeVirt<'a> {
    /// Installs the kinds, and waits until they are served.
    pub fn install(plane: &'a ControlPlane, namespace: &'a str) -> Result<Self> {
        for (kind, plural) in [
            (MACHINE, "virtualmachines"),
            (INSTANCE, "virtualmachineinstances"),
            (MIGRATION, "virtualmachineinstancemigrations"),
        ] {
            plane.apply_object(&definition(kind.1, plural))?;
            poll::until(&format!("{} is served", kind.1), LIMIT, || {
                plane.find(kind, namespace, "none").map(drop)
            })?;
        }
        Ok(Self { plane, namespace })
    }

    /// A machine that is not started.
    pub fn machine(&self, name: &str) -> Result<String> {
        self.apply(MACHINE, name, &json!({}), &json!({"spec": {"runStrategy": "Halted", "template": {}}}))
    }

    /// What runs of a machine; `machine` is its UID. Without one, nobody makes it again.
    pub fn instance(&self, name: &str, machine: Option<&str>) -> Result<Instance> {
        let owner = |uid: &str| json!([{"apiVersion": API_VERSION, "kind": MACHINE.1, "name": name, "uid": uid, "controller": true}]);
        let meta = json!({"finalizers": [FINALIZER], "ownerReferences": machine.map(owner)});
        let uid = self.apply(INSTANCE, name, &meta, &json!({"spec": {"domain": {"devices": {}}}}))?;
        Ok(Instance { name: name.to_owned(), uid })
    }

    /// The instance runs on this node, and these pods of it are there, beside those that were.
    pub fn place(&self, instance: &Instance, node: &str, pods: &[(&str, &str)]) -> Result<()> {
        let pods: serde_json::Map<String, Value> =
            pods.iter().map(|(uid, node)| ((*uid).to_owned(), json!(node))).collect();
        let status = json!({"phase": "Running", "nodeName": node, "activePods": pods});
        self.patch_instance(instance, &json!({ "status": status }))
    }

    /// Changes the instance by a merge patch.
    pub fn patch_instance(&self, instance: &Instance, patch: &Value) -> Result<()> {
        self.patch(INSTANCE, &instance.name, patch)
    }

    /// The instance is to move.
    pub fn migration(&self, name: &str, instance: &Instance) -> Result<Migration> {
        let uid = self.apply(MIGRATION, name, &json!({}), &json!({"spec": {"vmiName": instance.name}}))?;
        self.patch(MIGRATION, name, &json!({"status": {"phase": "Scheduling"}}))?;
        Ok(Migration { name: name.to_owned(), uid })
    }

    /// It has moved, or it has not: `Succeeded` or `Failed`.
    pub fn end_migration(&self, migration: &Migration, phase: &str) -> Result<()> {
        self.patch(MIGRATION, &migration.name, &json!({"status": {"phase": phase}}))
    }

    /// The machine is deleted. What runs of it, the garbage collector deletes, which is not here.
    pub fn delete_machine(&self, name: &str) -> Result<()> {
        self.delete("virtualmachine", name)
    }

    /// The instance is being deleted. Its pods end.
    pub fn delete_instance(&self, instance: &Instance) -> Result<()> {
        self.delete("virtualmachineinstance", &instance.name)
    }

    /// The pods of an instance that is being deleted have ended.
    pub fn finish_instance(&self, instance: &Instance) -> Result<()> {
        self.patch(INSTANCE, &instance.name, &json!({"metadata": {"finalizers": null}}))?;
        poll::until("the instance is gone", LIMIT, || {
            let found = self.plane.find(INSTANCE, self.namespace, &instance.name)?;
            ensure!(found.is_none(), "it is there");
            Ok(())
        })
    }

    fn apply(&self, kind: Kind, name: &str, meta: &Value, more: &Value) -> Result<String> {
        let mut object = json!({"apiVersion": kind.0, "kind": kind.1, "metadata": meta});
        object["metadata"]["namespace"] = json!(self.namespace);
        object["metadata"]["name"] = json!(name);
        if let Some(object) = object["metadata"].as_object_mut() {
            object.retain(|_, value| !value.is_null());
        }
        if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
            object.extend(more.clone());
        }
        self.plane.apply_object(&object)?;
        let found = self.plane.find(kind, self.namespace, name)?.with_context(|| name.to_owned())?;
        Ok(found["metadata"]["uid"].as_str().context("uid")?.to_owned())
    }

    fn patch(&self, kind: Kind, name: &str, patch: &Value) -> Result<()> {
        let (kind, patch) = (kind.1.to_lowercase(), patch.to_string());
        let arguments = ["patch", &kind, name, "-n", self.namespace, "--type=merge", "-p", &patch];
        self.plane.kubectl(&arguments).map(drop)
    }

    fn delete(&self, kind: &str, name: &str) -> Result<()> {
        self.plane.kubectl(&["delete", kind, name, "-n", self.namespace, "--wait=false"]).map(drop)
    }
}

/// A kind whose objects may say anything.
fn definition(kind: &str, plural: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.kubevirt.io")},
        "spec": {
            "group": "kubevirt.io", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}
