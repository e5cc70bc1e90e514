//! What the pod had that a virtual machine has moved from becomes that of the pod that it has moved to, which uses it already and
//! has written nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Api;
use kube::api::{Patch, PatchParams};
use spiderpool_api::annotations::MIGRATION;
use spiderpool_api::crd::{SpiderIPAddress, taking_patch};
use spiderpool_api::pod::Pod;
use spiderpool_api::virtual_machine::place;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::{AddressState, Holding, Owner};
use spiderpool_core::names::PodIdentity;
use spiderpool_runtime::virtual_machines::read_instance;
use tracing::{debug, info};

use super::actuator::Actuator;
use super::error::ReconcileError;

impl Actuator {
    /// Hands over what this pod has left, if the API server confirms that its virtual machine has moved. The endpoint follows: that
    /// of a pod which holds addresses and has none is written.
    pub(super) async fn hand_over(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        let left: Vec<(Holding, Vec<PodIdentity>)> = self.state.read(|state| {
            let kept = state.addresses.kept_by(id).map(|left| (left.clone(), state.targets_of(left)));
            kept.filter(|(_, targets)| !targets.is_empty()).collect()
        });
        let all: BTreeSet<&PodIdentity> = left.iter().flat_map(|(_, targets)| targets).collect();
        for target in all {
            let is_alive = |pod: &Pod| pod.identity == *target && pod.stage == PodStage::Alive;
            let Some(pod) = self.read_pod(target).await?.filter(is_alive) else { continue };
            for (left, _) in left.iter().filter(|(_, targets)| targets.contains(target)) {
                let Some(machine) = &left.owner.virtual_machine else { continue };
                if !self.has_moved_to(&pod, machine).await? {
                    debug!(pod = %target, machine = &**machine, "the virtual machine is not said to have moved to the pod");
                    break;
                }
                self.hand_over_address(left, &pod).await?;
            }
        }
        Ok(())
    }

    /// Whether the virtual machine runs in this pod now. What the pod itself says of that is not enough.
    async fn has_moved_to(&self, pod: &Pod, machine: &str) -> Result<bool, ReconcileError> {
        let is_of_machine = |owner: &&OwnerRef| owner.is_virtual_machine_instance() && owner.name == machine;
        let owner = pod.owner.as_ref().filter(is_of_machine);
        let (Some(owner), Some(node)) = (owner, &pod.node) else { return Ok(false) };
        if !pod.annotations.contains_key(MIGRATION) {
            return Ok(false);
        }
        let found = read_instance(&self.kube, pod.identity.name.namespace(), machine).await;
        let failed = |source| ReconcileError::ReadSuccessor { pod: pod.identity.to_string(), source };
        let instance = found.map_err(failed)?.found();
        Ok(instance.is_some_and(|instance| place(&instance).has_moved_to(&owner.uid, node.as_str())))
    }

    async fn hand_over_address(&self, left: &Holding, pod: &Pod) -> Result<(), ReconcileError> {
        let (address, id) = (left.ip(), &pod.identity);
        let failed = |source| ReconcileError::HandOver { address, pod: id.to_string(), source };
        let api = Api::<SpiderIPAddress>::all(self.kube.client());
        let Some(object) = self.kube.read(api.get_opt(&object_name(address))).await.map_err(failed)? else {
            return Ok(());
        };
        let waits = |now: &Holding| now.state == AddressState::Kept && now.owner.pod == left.owner.pod;
        let Some(found) = Holding::try_from(&object).ok().filter(waits) else { return Ok(()) };
        let handed = Holding {
            owner: Arc::new(Owner { pod: id.clone(), ..(*found.owner).clone() }),
            node: pod.node.clone(),
            // The agent of the node knows the sandbox.
            container_id: None,
            grace: Some(pod.grace),
            state: AddressState::Bound,
            ..found
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (uid, version) = (text(&object.metadata.uid), text(&object.metadata.resource_version));
        let patch = Patch::Merge(taking_patch(&uid, &version, &handed));
        match self.kube.write(api.patch(&object_name(address), &PatchParams::default(), &patch)).await {
            Ok(_) => {
                let from = &left.owner.pod;
                info!(%address, pool = %left.pool, %from, pod = %id, uid = %id.uid, "address handed over, its virtual machine has moved");
                Ok(())
            }
            Err(failure) if failure.is_conflict() || failure.is_not_found() => {
                Err(ReconcileError::Changed { address, pod: id.to_string() })
            }
            Err(failure) => Err(failed(failure)),
        }
    }
}
