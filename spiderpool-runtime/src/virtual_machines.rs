//! KubeVirt's objects on the API server, which a cluster may have or not.

use kube::Api;
use serde::de::DeserializeOwned;
use spiderpool_api::virtual_machine::{InstanceObject, instances, machines, migration, migrations, state};
use spiderpool_core::ipam::virtual_machine::{Migration, SuccessorStep, of_instance, of_machine};
use spiderpool_core::ipam::{Owner, Successor};
use tracing::warn;

use crate::kubernetes::{ApiFailure, Kubernetes};

/// What is found of an object of a kind that may not be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It exists.
    Found(T),
    /// It does not exist.
    Missing,
    /// The API server does not know its kind: nothing is known of it.
    NotServed,
}

impl<T> Lookup<T> {
    /// The object, if it exists.
    pub fn found(self) -> Option<T> {
        match self {
            Self::Found(object) => Some(object),
            Self::Missing | Self::NotServed => None,
        }
    }
}

/// A VirtualMachineInstance.
pub async fn read_instance(
    kube: &Kubernetes,
    namespace: &str,
    name: &str,
) -> Result<Lookup<InstanceObject>, ApiFailure> {
    look_up(kube, &instances(kube.client(), namespace), name).await
}

/// A VirtualMachineInstanceMigration.
pub async fn read_migration(
    kube: &Kubernetes,
    namespace: &str,
    name: &str,
) -> Result<Option<Migration>, ApiFailure> {
    let found = look_up(kube, &migrations(kube.client(), namespace), name).await?;
    Ok(found.found().as_ref().map(migration))
}

/// Whether another pod of the virtual machine `machine` follows this one. Where the kinds are not served nothing says that
/// none will: what is kept stays so.
pub(crate) async fn read_machine_successor(
    kube: &Kubernetes,
    owner: &Owner,
    machine: &str,
) -> Result<Successor, ApiFailure> {
    let namespace = owner.pod.name.namespace();
    let instance = match read_instance(kube, namespace, machine).await? {
        Lookup::Found(instance) => Some(state(&instance, &owner.pod.uid)),
        Lookup::Missing => None,
        Lookup::NotServed => return Ok(unknown(owner, machine)),
    };
    if let SuccessorStep::Known(successor) = of_instance(instance) {
        return Ok(successor);
    }
    match look_up(kube, &machines(kube.client(), namespace), machine).await? {
        Lookup::Found(machine) => Ok(of_machine(Some(machine.metadata.deletion_timestamp.is_some()))),
        Lookup::Missing => Ok(of_machine(None)),
        Lookup::NotServed => Ok(unknown(owner, machine)),
    }
}

/// Whether another pod of the virtual machine has this one's addresses already, where addresses do not stay with machines. Without the
/// kinds, or the right to read them, none has: what was kept for machines is freed then.
pub(crate) async fn read_migration_successor(
    kube: &Kubernetes,
    owner: &Owner,
    machine: &str,
) -> Result<Successor, ApiFailure> {
    let found = match read_instance(kube, owner.pod.name.namespace(), machine).await {
        Err(failure) if failure.is_forbidden() => None,
        found => found?.found(),
    };
    let has_other_pods = found.is_some_and(|instance| state(&instance, &owner.pod.uid).has_other_pods);
    Ok(if has_other_pods { Successor::Expected } else { Successor::None })
}

fn unknown(owner: &Owner, machine: &str) -> Successor {
    warn!(pod = %owner.pod, machine, "the API server does not serve kubevirt.io/v1: addresses of the virtual machine stay kept");
    Successor::Expected
}

/// A response 404 that does not name the object is about the kind.
async fn look_up<K>(kube: &Kubernetes, api: &Api<K>, name: &str) -> Result<Lookup<K>, ApiFailure>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    match kube.read(api.get(name)).await {
        Ok(object) => Ok(Lookup::Found(object)),
        Err(failure) if failure.is_missing(name) => Ok(Lookup::Missing),
        Err(failure) if failure.is_not_found() => Ok(Lookup::NotServed),
        Err(failure) => Err(failure),
    }
}
