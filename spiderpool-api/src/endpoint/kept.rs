//! What a pod that has ended leaves to the next one of its name or of its virtual machine: the endpoint names it until that pod has
//! it, or nobody claims it any more.

use kube::core::ObjectMeta;
use spiderpool_core::ipam::{Holding, PodAnnotations};
use spiderpool_core::names::{PodIdentity, PodUid};

use super::entries::{restore, without};
use super::whose::name_pod;
use crate::annotations::KEPT_ADDRESSES;
use crate::crd::{EndpointAllocation, EndpointIp, NoSpec, SpiderEndpoint, SpiderEndpointStatus};

/// What to write over the endpoint of a pod that has ended and leaves `kept` to the next one of its name, on whatever
/// node. `None`: it says so already, or is that one's. One that no node holds is taken: what it names waits, too.
pub fn handed_on<H: AsRef<Holding>>(
    found: &SpiderEndpoint,
    pod: &PodIdentity,
    kept: &[H],
) -> Option<SpiderEndpoint> {
    let is_of_pod = |status: &&SpiderEndpointStatus| {
        status.current.uid == pod.uid.as_str() || status.current.node.is_empty()
    };
    let known = found.status.as_ref().filter(is_of_pod)?;
    let ips = with_kept(known.current.ips.clone(), kept);
    let current = EndpointAllocation { uid: pod.uid.to_string(), node: String::new(), ips };
    let mut metadata = ObjectMeta { owner_references: None, ..found.metadata.clone() };
    name_pod(&mut metadata, &pod.name);
    let desired = SpiderEndpoint {
        metadata,
        spec: NoSpec {},
        status: Some(SpiderEndpointStatus { current, ..known.clone() }),
    };
    (desired != *found).then_some(desired)
}

/// Entries that name these addresses, too. An entry that names another one for a NIC and family, which is not kept, gets the
/// one that is.
pub(super) fn with_kept<H: AsRef<Holding>>(mut ips: Vec<EndpointIp>, kept: &[H]) -> Vec<EndpointIp> {
    for named in restore(kept, &PodAnnotations::default(), |_| None) {
        let Some(entry) = ips.iter_mut().find(|entry| entry.interface == named.interface) else {
            ips.push(named);
            continue;
        };
        let is_kept = |text: &Option<String>| {
            let address = text.as_deref().and_then(|text| text.parse::<ipnet::IpNet>().ok());
            address.is_some_and(|address| kept.iter().any(|one| one.as_ref().address == address))
        };
        if named.ipv4.is_some() && !is_kept(&entry.ipv4) {
            (entry.ipv4, entry.ipv4_pool, entry.ipv4_gateway) = (named.ipv4, named.ipv4_pool, None);
        }
        if named.ipv6.is_some() && !is_kept(&entry.ipv6) {
            (entry.ipv6, entry.ipv6_pool, entry.ipv6_gateway) = (named.ipv6, named.ipv6_pool, None);
        }
    }
    ips
}

/// The entries that wait for this pod: those of an earlier one of its name that no node holds, and what was left of them when
/// this pod's first NICs were written.
pub fn waiting_for(found: &SpiderEndpoint, pod: &PodUid) -> Vec<EndpointIp> {
    let status = found.status.iter().filter(|status| status.current.uid != pod.as_str());
    let of_earlier = status.flat_map(|status| status.current.ips.clone());
    of_earlier.chain(annotated(found)).collect()
}

/// The entries of the annotation. One that somebody has written into it and that does not parse is not there.
pub(super) fn annotated(found: &SpiderEndpoint) -> Vec<EndpointIp> {
    let annotations = found.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(KEPT_ADDRESSES));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The same with these entries in the annotation.
pub(super) fn annotate(meta: &mut ObjectMeta, waiting: &[EndpointIp]) {
    let annotations = meta.annotations.get_or_insert_default();
    annotations.remove(KEPT_ADDRESSES);
    if !waiting.is_empty() {
        annotations.extend(serde_json::to_string(waiting).ok().map(|text| (KEPT_ADDRESSES.to_owned(), text)));
    }
    if annotations.is_empty() {
        meta.annotations = None;
    }
}

/// What is left of an endpoint when nobody claims these addresses of an earlier pod any more: `None` if it says nothing else
/// and is that pod's.
pub fn unclaimed(mut found: SpiderEndpoint, freed: &[Holding]) -> Option<SpiderEndpoint> {
    let waiting = without(annotated(&found), freed);
    annotate(&mut found.metadata, &waiting);
    let status = found.status.as_mut()?;
    let of_status = |holding: &&Holding| holding.owner.pod.uid.as_str() == status.current.uid;
    let freed: Vec<Holding> = freed.iter().filter(of_status).cloned().collect();
    let is_of_ended = !freed.is_empty();
    status.current.ips = without(std::mem::take(&mut status.current.ips), &freed);
    let is_over = is_of_ended && status.current.ips.is_empty() && waiting.is_empty();
    (!is_over).then_some(found)
}
