//! Whose an endpoint is: which pod's, and whether it is a virtual machine's.

use kube::core::ObjectMeta;
use spiderpool_core::ipam::virtual_machine;
use spiderpool_core::names::{PodName, PodUid};

use crate::annotations::ENDPOINT_POD;
use crate::crd::{SpiderEndpoint, SpiderEndpointStatus};

/// Whether the endpoint is another pod's.
pub fn is_of_another(found: &SpiderEndpoint, pod: &PodUid) -> bool {
    found.status.as_ref().is_some_and(|status| status.current.uid != pod.as_str())
}

/// Whether another pod holds what the endpoint names, on some node: nothing of it waits yet.
pub fn is_held_by_another(found: &SpiderEndpoint, pod: &PodUid) -> bool {
    let has_node = |status: &SpiderEndpointStatus| !status.current.node.is_empty();
    is_of_another(found, pod) && found.status.as_ref().is_some_and(has_node)
}

/// Whether the endpoint is a virtual machine's: ours then names its pod, and upstream's has the name of its owner.
pub fn is_of_machine(found: &SpiderEndpoint) -> bool {
    let mut annotations = found.metadata.annotations.iter();
    let names_pod = annotations.any(|annotations| annotations.contains_key(ENDPOINT_POD));
    let has_owners_name = found.status.as_ref().is_some_and(|status| {
        status.owner_controller_type == virtual_machine::INSTANCE
            && found.metadata.name.as_ref() == Some(&status.owner_controller_name)
    });
    names_pod || has_owners_name
}

/// Whether the endpoint is not this pod's, and a virtual machine's where the pod's is none (`of_machine`), or the other way
/// round. Whoever may create pods may give one the name of a machine.
pub fn is_of_other_kind(found: &SpiderEndpoint, pod: &PodUid, of_machine: bool) -> bool {
    is_of_another(found, pod) && is_of_machine(found) != of_machine
}

/// The pod whose endpoint this is, by the endpoint's metadata; `None` if that makes no sense.
pub fn pod_name(meta: &ObjectMeta) -> Option<PodName> {
    let annotations = meta.annotations.as_ref();
    let named = annotations.and_then(|annotations| annotations.get(ENDPOINT_POD)).or(meta.name.as_ref());
    PodName::new(meta.namespace.as_deref()?, named?.as_str()).ok()
}

/// The same with the name of its pod, if that is not the endpoint's.
pub(super) fn name_pod(meta: &mut ObjectMeta, pod: &PodName) {
    let is_endpoints = meta.name.as_deref() == Some(pod.name());
    let annotations = meta.annotations.get_or_insert_default();
    if is_endpoints {
        annotations.remove(ENDPOINT_POD);
    } else {
        annotations.insert(ENDPOINT_POD.to_owned(), pod.name().to_owned());
    }
    if annotations.is_empty() {
        meta.annotations = None;
    }
}
