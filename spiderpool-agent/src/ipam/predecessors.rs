//! What earlier pods of a StatefulSet pod's name have left for it: their SpiderEndpoint names the addresses, which are kept.

use std::sync::Arc;

use ipnet::IpNet;
use spiderpool_api::crd::EndpointIp;
use spiderpool_api::endpoint;
use spiderpool_core::ipam::AddressState;
use spiderpool_core::names::IfName;
use tracing::info;

use super::allocator::{AddressAllocator, AddressObject};
use super::endpoint_queue::EndpointQueue;
use super::error::AllocateError;
use super::request::AllocationRequest;

/// Finds it.
pub(super) struct Predecessors {
    pub(super) endpoints: Arc<EndpointQueue>,
    pub(super) allocator: Arc<AddressAllocator>,
}

impl Predecessors {
    /// The addresses that are kept for the pod's NICs. One that an earlier pod still holds is
    /// an error: the pod is to have it and no other.
    pub(super) async fn kept_for(
        &self,
        request: &AllocationRequest,
    ) -> Result<Vec<AddressObject>, AllocateError> {
        let pod = &request.pod.identity;
        let failed = |source| AllocateError::Predecessor { pod: pod.name.clone(), source };
        let endpoint = self.endpoints.get(&pod.name).await.map_err(failed)?;
        let waiting = endpoint.map(|endpoint| endpoint::waiting_for(&endpoint, &pod.uid)).unwrap_or_default();
        let mut kept = Vec::new();
        for (nic, address) in waiting.iter().flat_map(addresses) {
            if !request.speaks_of(&nic) {
                continue;
            }
            let found = self.allocator.find(address.addr()).await.map_err(failed)?;
            let is_of_name = |object: &AddressObject| {
                object.holding.owner.pod.name == pod.name && object.holding.nic == nic
            };
            let Some(found) = found.filter(is_of_name) else { continue };
            match found.holding.state {
                AddressState::Kept => kept.push(found),
                AddressState::Bound if found.holding.owner.pod.uid != pod.uid => {
                    return Err(AllocateError::StillHeld(Box::new((*found.holding).clone())));
                }
                // An ADD whose answer was lost has taken it.
                AddressState::Bound => self.allocator.learn(found),
                AddressState::Quarantined => {}
            }
        }
        if !kept.is_empty() {
            let addresses: Vec<_> = kept.iter().map(|object| object.holding.ip()).collect();
            info!(?addresses, "kept for the pod since an earlier one of its name");
        }
        Ok(kept)
    }
}

/// The addresses of an endpoint's entry, and their NIC. An entry of upstream's that names no NIC is not understood.
fn addresses(entry: &EndpointIp) -> Vec<(IfName, IpNet)> {
    let Ok(nic) = entry.interface.parse::<IfName>() else { return Vec::new() };
    let texts = [&entry.ipv4, &entry.ipv6].into_iter().flatten();
    texts.filter_map(|text| Some((nic.clone(), text.parse().ok()?))).collect()
}
