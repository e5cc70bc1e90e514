//! Addresses that wait for the next pod of a name or of a virtual machine: what has ended leaves them, and what nobody claims is
//! freed.

use kube::Api;
use kube::api::{Patch, PatchParams};
use spiderpool_api::crd::{AddressState, SpiderIPAddress};
use spiderpool_api::endpoint;
use spiderpool_api::pod::Pod;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::release::FreeReason;
use spiderpool_core::ipam::{Holding, Owner, Successor};
use spiderpool_core::names::{PodIdentity, PodName};
use spiderpool_runtime::endpoints::EndpointStore;
use tracing::info;

use super::actuator::Actuator;
use super::error::ReconcileError;

impl Actuator {
    /// The endpoint first: by it the next pod finds what is kept.
    pub(super) async fn keep(&self, owner: &Owner, addresses: &[Holding]) -> Result<(), ReconcileError> {
        let id = &owner.pod;
        let handed_on = EndpointStore::new(self.kube.clone()).hand_on(owner, "", addresses).await;
        handed_on.map_err(|source| ReconcileError::Endpoint { pod: id.to_string(), source })?;
        let api = Api::<SpiderIPAddress>::all(self.kube.client());
        for known in addresses {
            let address = known.ip();
            let failed = |source| ReconcileError::Address { address, pod: id.to_string(), source };
            let found = self.kube.read(api.get_opt(&object_name(address))).await.map_err(failed)?;
            let is_held = |found: &SpiderIPAddress| {
                found.spec.pod_uid == id.uid.as_str() && found.spec.state == AddressState::Bound
            };
            let Some(found) = found.filter(is_held) else { continue };
            // An ADD has taken it back: the pod may run.
            if known.is_detached && !Holding::try_from(&found).is_ok_and(|now| now.is_detached) {
                return Err(ReconcileError::Changed { address, pod: id.to_string() });
            }
            let (name, parameters) = (object_name(address), PatchParams::default());
            let patch = Patch::Merge(found.keeping_patch());
            match self.kube.write(api.patch(&name, &parameters, &patch)).await {
                Ok(_) => {
                    info!(%address, pool = found.spec.pool, pod = %id, uid = %id.uid, "address kept for the next pod of its StatefulSet or virtual machine");
                }
                Err(failure) if failure.is_conflict() || failure.is_not_found() => {
                    return Err(ReconcileError::Changed { address, pod: id.to_string() });
                }
                Err(failure) => return Err(failed(failure)),
            }
        }
        Ok(())
    }

    /// Frees what waits for another pod of the name, if the API server confirms that none will come.
    pub(super) async fn free_kept(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        let Some(owner) = self.state.read(|state| state.addresses.owner(id).cloned()) else { return Ok(()) };
        match self.successor(&owner).await? {
            Successor::Expected => Ok(()),
            Successor::None => {
                // What another pod of its virtual machine may use is not freed, whether a further one will come or not.
                let kept: Vec<_> = self.state.read(|state| {
                    let kept = state.addresses.kept_by(id).filter(|kept| state.targets_of(kept).is_empty());
                    kept.cloned().collect()
                });
                self.free_unclaimed(&kept).await
            }
        }
    }

    /// Frees what waits for a pod that runs without it, by the name of its endpoint: its sandbox has all NICs that it is to
    /// have. What is to be handed over is in use.
    pub(super) async fn free_kept_for_running(&self, name: &PodName) -> Result<(), ReconcileError> {
        let kept: Vec<Holding> = self.state.read(|state| {
            let kept = state.addresses.kept_for(name).filter(|kept| state.targets_of(kept).is_empty());
            kept.cloned().collect()
        });
        // A pod may have the name of a virtual machine: neither says anything of what waits for the other's next one.
        let (of_machine, of_pod): (Vec<_>, Vec<_>) =
            kept.into_iter().partition(|kept| kept.owner.virtual_machine.is_some());
        self.free_if_it_runs_without(name, &of_pod).await?;
        self.free_if_it_runs_without(name, &of_machine).await
    }

    /// The same for what waits for pods of one kind.
    async fn free_if_it_runs_without(&self, name: &PodName, kept: &[Holding]) -> Result<(), ReconcileError> {
        let Some(first) = kept.first() else { return Ok(()) };
        let machine = first.owner.virtual_machine.as_deref();
        let pod = match machine {
            Some(_) => self.pod_of_machine(name).await?,
            None => Some(first.owner.pod.name.clone()),
        };
        let Some(pod) = pod else { return Ok(()) };
        let found = self.read_pod_of(&pod).await?;
        let runs_without = |pod: &Pod| {
            let instance = pod.owner.as_ref().filter(|owner| owner.is_virtual_machine_instance());
            pod.stage == PodStage::Alive
                && pod.has_running
                && instance.map(|owner| owner.name.as_str()) == machine
                && kept.iter().all(|holding| holding.owner.pod.uid != pod.identity.uid)
        };
        if found.is_some_and(|pod| runs_without(&pod)) { self.free_unclaimed(kept).await } else { Ok(()) }
    }

    /// The pod of a virtual machine that has the endpoint of this name.
    async fn pod_of_machine(&self, name: &PodName) -> Result<Option<PodName>, ReconcileError> {
        let found = EndpointStore::new(self.kube.clone()).get(name).await;
        let found = found.map_err(|source| ReconcileError::Endpoint { pod: name.to_string(), source })?;
        let found = found.filter(endpoint::is_of_machine);
        Ok(found.and_then(|found| endpoint::pod_name(&found.metadata)))
    }

    /// Of these addresses, all of one name, those that still wait.
    async fn free_unclaimed(&self, kept: &[Holding]) -> Result<(), ReconcileError> {
        let Some(first) = kept.first() else { return Ok(()) };
        let name = &first.owner.endpoint_name();
        let api = Api::<SpiderIPAddress>::all(self.kube.client());
        let mut waiting = Vec::new();
        for holding in kept {
            let (address, pod) = (holding.ip(), name.to_string());
            let found = self.kube.read(api.get_opt(&object_name(address))).await;
            let found = found.map_err(|source| ReconcileError::Address { address, pod, source })?;
            let found = found.and_then(|found| Holding::try_from(&found).ok());
            let still_waits =
                |now: &Holding| now.state == AddressState::Kept && now.owner.pod == holding.owner.pod;
            waiting.extend(found.filter(still_waits));
        }
        // The endpoint first: what it does not name, nobody takes over.
        let dropped = EndpointStore::new(self.kube.clone()).forget_kept(name, &waiting).await;
        dropped.map_err(|source| ReconcileError::Endpoint { pod: name.to_string(), source })?;
        for holding in &waiting {
            self.free_address(&holding.owner.pod, holding, FreeReason::Unclaimed).await?;
        }
        Ok(())
    }
}
