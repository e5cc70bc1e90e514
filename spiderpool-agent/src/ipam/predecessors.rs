//! Addresses that a SpiderEndpoint names and this agent does not know: those that earlier pods of a StatefulSet pod's name, or of
//! a virtual machine, have left for a pod, which are kept, or which the pod uses that a virtual machine moves from; and those that
//! the leader has written for the pod.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use spiderpool_api::annotations::MIGRATION;
use spiderpool_api::crd::EndpointIp;
use spiderpool_api::endpoint;
use spiderpool_api::labels::MIGRATION_UID;
use spiderpool_core::ipam::AddressState;
use spiderpool_core::names::{IfName, PodIdentity, PodName};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::virtual_machines::read_migration;
use tracing::info;

use super::allocator::{AddressAllocator, AddressObject};
use super::endpoint_queue::EndpointQueue;
use super::error::AllocateError;
use super::request::AllocationRequest;

/// Finds it.
pub(super) struct Predecessors {
    pub(super) kube: Kubernetes,
    pub(super) endpoints: Arc<EndpointQueue>,
    pub(super) allocator: Arc<AddressAllocator>,
}

/// What there is for a pod.
#[derive(Default)]
pub(super) struct Left {
    /// These wait for it.
    pub(super) kept: Vec<AddressObject>,
    /// These the pod uses that its virtual machine runs in, or a pod has left that it has moved from before.
    pub(super) shared: Vec<AddressObject>,
    /// If its virtual machine is moving to it, and the endpoint is still another pod's: all addresses of the machine.
    pub(super) guest: Option<BTreeSet<IpAddr>>,
}

impl Predecessors {
    /// What there is for the pod's NICs. An address that an earlier pod still holds is an error, unless that is how a virtual
    /// machine moves: the pod is to have it and no other.
    pub(super) async fn left_for(&self, request: &AllocationRequest) -> Result<Left, AllocateError> {
        let (pod, owner) = (&request.pod.identity, &request.claimant.owner);
        let failed = |source| AllocateError::Predecessor { pod: pod.name.clone(), source };
        let name = owner.endpoint_name();
        let Some(endpoint) = self.endpoints.get(&name).await.map_err(failed)? else {
            return Ok(Left::default());
        };
        let waiting = endpoint::waiting_for(&endpoint, &pod.uid);
        let is_guest = endpoint::is_of_another(&endpoint, &pod.uid)
            && self.is_migration_target(request).await.map_err(failed)?;
        let of_machine = || waiting.iter().flat_map(nets).map(|net| net.addr()).collect();
        let mut left = Left { guest: is_guest.then(of_machine), ..Left::default() };
        for (nic, address) in waiting.iter().flat_map(addresses) {
            if !request.speaks_of(&nic) {
                continue;
            }
            let found = self.allocator.find(address.addr()).await.map_err(failed)?;
            // A pod may have the name of a virtual machine, and so that of its endpoint.
            let is_left = |object: &AddressObject| {
                let earlier = &object.holding.owner;
                earlier.endpoint_name() == name
                    && earlier.virtual_machine == owner.virtual_machine
                    && object.holding.nic == nic
            };
            let Some(found) = found.filter(is_left) else { continue };
            match found.holding.state {
                // No pod holds it, and one uses it all the same that the machine has moved to before: nobody has made it that one's yet.
                AddressState::Kept if is_guest => left.shared.push(found),
                AddressState::Kept => left.kept.push(found),
                AddressState::Bound if !request.shares(&found) => self.allocator.learn(found),
                AddressState::Bound if is_guest => left.shared.push(found),
                AddressState::Bound => {
                    return Err(AllocateError::StillHeld(Box::new((*found.holding).clone())));
                }
                AddressState::Quarantined => {}
            }
        }
        if !left.kept.is_empty() {
            info!(addresses = ?ips(&left.kept), "kept for the pod since an earlier one");
        }
        if !left.shared.is_empty() {
            info!(addresses = ?ips(&left.shared), "of the pod that the virtual machine moves from");
        }
        Ok(left)
    }

    /// Learns of what the pod itself holds: the leader has written it since this agent started, because its object was lost or
    /// upstream's agent had allocated it. `endpoint` is the endpoint's name. How many addresses; the pod must be locked.
    pub(super) async fn learn_own(&self, pod: &PodIdentity, endpoint: &PodName) -> Result<usize, ApiFailure> {
        let endpoint = self.endpoints.get(endpoint).await?;
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

    /// Whether KubeVirt is moving the pod's virtual machine to it. Without that, no two pods have one address.
    async fn is_migration_target(&self, request: &AllocationRequest) -> Result<bool, ApiFailure> {
        let (pod, machine) = (&request.pod, &request.claimant.owner.virtual_machine);
        let (Some(machine), Some(name)) = (machine, pod.annotations.get(MIGRATION)) else { return Ok(false) };
        let migration = read_migration(&self.kube, pod.identity.name.namespace(), name).await?;
        Ok(migration.is_some_and(|migration| migration.moves(machine, pod.labels.get(MIGRATION_UID))))
    }
}

fn ips(objects: &[AddressObject]) -> Vec<IpAddr> {
    objects.iter().map(|object| object.holding.ip()).collect()
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
