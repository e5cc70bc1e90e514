//! Addresses that a pod was given and that others use on its NIC's link, as the plugin has found: they are quarantined, so
//! that nobody gets them for a while, and the pod gets others.

use std::time::SystemTime;

use spiderpool_api::agent::ipam::AddressConflict;
use spiderpool_api::endpoint::Lifetime;
use spiderpool_core::ipam::{AddressState, Claim, Conflict, Holding, IpamError, Quarantine, plan_exchange};
use tracing::warn;

use super::Ipam;
use super::allocator::AddressObject;
use super::error::AllocateError;
use super::request::AllocationRequest;

impl Ipam {
    /// Gives up what others use of what the NIC was given. The pod must be locked. What it does not hold any more was given
    /// up when the same was said before. If one may not be exchanged, the others are all the same.
    pub(super) async fn exchange(
        &self,
        request: &AllocationRequest,
        conflicts: &[AddressConflict],
    ) -> Result<(), AllocateError> {
        let held = self.allocator.holdings().read(|index| index.of_pod(&request.pod.identity.uid));
        let mut refused = Vec::new();
        for found in conflicts {
            let is_meant = |object: &&AddressObject| {
                let holding = &object.holding;
                holding.ip() == found.address
                    && holding.nic == request.nic
                    && holding.state == AddressState::Bound
                    && holding.container_id.as_ref() == Some(&request.claimant.container_id)
            };
            let Some(object) = held.iter().find(is_meant) else { continue };
            match self.quarantine(request, object, found).await {
                Ok(()) => {}
                Err(AllocateError::Ipam(errors)) => refused.extend(errors),
                Err(other) => return Err(other),
            }
        }
        if refused.is_empty() { Ok(()) } else { Err(AllocateError::Ipam(refused)) }
    }

    async fn quarantine(
        &self,
        request: &AllocationRequest,
        object: &AddressObject,
        found: &AddressConflict,
    ) -> Result<(), AllocateError> {
        let Holding { address, nic, pool, .. } = &*object.holding;
        let conflict =
            Conflict { address: found.address, by: found.mac, nic: nic.clone(), pool: pool.clone() };
        let failed = |source| AllocateError::Quarantine { address: *address, source };
        let entry = self.pool_specs.get(pool).await;
        let entry = entry.map_err(|source| AllocateError::ReadPool { pool: pool.clone(), source })?;
        // Nothing is lost with one whose spec nobody can read: no address of it is given.
        let usable = entry.and_then(|entry| entry.spec.ok()).map_or(0, |pool| pool.usable.len());
        let quarantined = self.allocator.quarantined(pool).await.map_err(failed)?;
        let claim = claim(request, object);
        if let Err(error) = plan_exchange(conflict.clone(), claim, usable, quarantined) {
            return Err(AllocateError::Ipam(vec![IpamError::Conflict(error)]));
        }
        let until = SystemTime::now() + self.quarantine_time;
        let quarantine = Quarantine { by: found.mac, until };
        self.allocator.quarantine(object, &quarantine).await.map_err(failed)?;
        warn!(%address, %pool, by = %found.mac, ?until, "somebody else uses the address, quarantined");
        self.metrics.quarantined.inc();
        self.pod_events.address_conflict(&request.pod, &conflict, self.quarantine_time);
        // The leader writes again what the endpoint of a pod that is alive names, when the object is gone.
        let forgotten = self.endpoints.forget(&object.holding.owner, &[(*object.holding).clone()]).await;
        forgotten.map_err(|source| AllocateError::Quarantine { address: *address, source })
    }
}

/// Whether the pod is to have this address and no other. A pod that keeps its addresses has none that others rely on before
/// it has run for the first time.
fn claim(request: &AllocationRequest, object: &AddressObject) -> Claim {
    let ip = object.holding.ip();
    if request.requested.of(object.holding.family()) == Some(ip) {
        return Claim::Requested;
    }
    let is_inherited = object.created < request.pod.created;
    match request.lifetime {
        Lifetime::Name if is_inherited || request.pod.has_started => Claim::Kept,
        Lifetime::Name | Lifetime::Pod => Claim::Any,
    }
}
