//! Whether another pod follows one that has ended: by the StatefulSet or the virtual machine as it is now.

use spiderpool_api::stateful_set::{scale, stateful_sets};
use spiderpool_core::ipam::{KeptWorkloads, Owner, Successor, SuccessorSource};

use crate::kubernetes::{ApiFailure, Kubernetes};
use crate::virtual_machines::{read_machine_successor, read_migration_successor};

/// Of the pod that holds something, read from the API server: a watch may be behind what is scaled or deleted. Where virtual
/// machines do not keep their addresses, or not any more, one that is moving goes on with those that both of its pods use.
pub async fn read_successor(
    kube: &Kubernetes,
    owner: &Owner,
    kept: KeptWorkloads,
) -> Result<Successor, ApiFailure> {
    match kept.source(owner) {
        None => match &owner.virtual_machine {
            Some(machine) => read_migration_successor(kube, owner, machine).await,
            None => Ok(Successor::None),
        },
        Some(SuccessorSource::VirtualMachine(machine)) => read_machine_successor(kube, owner, machine).await,
        Some(SuccessorSource::StatefulSet(set)) => {
            let name = &owner.pod.name;
            let found = kube.read(stateful_sets(kube.client(), name.namespace()).get_opt(set)).await?;
            let is_expected = found.is_some_and(|found| scale(&found).has_pod(set, name.name()));
            Ok(if is_expected { Successor::Expected } else { Successor::None })
        }
    }
}
