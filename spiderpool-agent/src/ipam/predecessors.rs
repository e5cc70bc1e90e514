//! Addresses that a pod's SpiderEndpoint names and this agent does not know: those that earlier pods of a StatefulSet pod's name
//! have left for it, and those that the leader has written for the pod.

use std::sync::Arc;

use ipnet::IpNet;
use spiderpool_api::crd::EndpointIp;
use spiderpool_api::endpoint;
use spiderpool_core::ipam::AddressState;
use spiderpool_core::names::{IfName, PodIdentity};
use spiderpool_runtime::kubernetes::ApiFailure;
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

    /// Learns of what the pod itself holds: the leader has written it since this agent started, because its object was lost or
    /// upstream's agent had allocated it. How many addresses; the pod must be locked.
    pub(super) async fn learn_own(&self, pod: &PodIdentity) -> Result<usize, ApiFailure> {
        let endpoint = self.endpoints.get(&pod.name).await?;
        let status = endpoint.and_then(|endpoint| endpoint.status);
        let status = status.filter(|status| status.current.uid == pod.uid.as_str());
        let mut learnt = 0;
        let entries = status.map(|status| status.current.ips).unwrap_or_default();
        let named: Vec<IpNet> = entries.iter().flat_map(nets).collect();
        for address in named {
            let found = self.allocator.find(address.addr()).await?;
            let is_own = |object: &AddressObject| {
                object.holding.owner.pod == *pod && object.holding.state == AddressState::Bound
            };
            if let Some(found) = found.filter(is_own) {
                info!(%address, "the pod holds an address that the leader has written");
                self.allocator.learn(found);
                learnt += 1;
            }
        }
        Ok(learnt)
    }
}

/// The addresses of an endpoint's entry, and their NIC. An entry of upstream's that names no NIC is not understood.
fn addresses(entry: &EndpointIp) -> Vec<(IfName, IpNet)> {
    let Ok(nic) = entry.interface.parse::<IfName>() else { return Vec::new() };
    nets(entry).map(|net| (nic.clone(), net)).collect()
}

/// The addresses of an endpoint's entry.
fn nets(entry: &EndpointIp) -> impl Iterator<Item = IpNet> {
    let texts = [&entry.ipv4, &entry.ipv6].into_iter().flatten();
    texts.filter_map(|text| text.parse().ok())
}
