//! Whether another pod of a pod's name will come: of a StatefulSet's pod, by the StatefulSet as it is now.

use spiderpool_api::stateful_set::{scale, stateful_sets};
use spiderpool_core::ipam::{Owner, Successor};

use crate::kubernetes::{ApiFailure, Kubernetes};

/// Of the pod that holds something, read from the API server: a watch may be behind a StatefulSet that is scaled.
pub async fn read_successor(kube: &Kubernetes, owner: &Owner) -> Result<Successor, ApiFailure> {
    let Some(set) = owner.stateful_set() else { return Ok(Successor::None) };
    let name = &owner.pod.name;
    let found = kube.read(stateful_sets(kube.client(), name.namespace()).get_opt(set)).await?;
    let is_expected = found.is_some_and(|found| scale(&found).has_pod(set, name.name()));
    Ok(if is_expected { Successor::Expected } else { Successor::None })
}
