//! Endpoints: those that an agent did not write, and those that are for nothing any more.

use kube::Api;
use spiderpool_api::crd::SpiderEndpointStatus;
use spiderpool_api::endpoint::{self, Lifetime, Record};
use spiderpool_api::pod::Pod;
use spiderpool_api::upstream::is_of_machine;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::{Owner, PodAnnotations, Successor, Workload};
use spiderpool_core::names::{PodIdentity, PoolName};
use spiderpool_runtime::endpoints::EndpointStore;
use spiderpool_runtime::kubernetes::ApiFailure;
use spiderpool_runtime::pools::{AllocationOwner, PoolObject};
use tracing::{info, warn};

use super::actuator::Actuator;
use super::error::ReconcileError;
use crate::leader::state::slim;

impl Actuator {
    /// Removes the finalizer of an endpoint that is being deleted, if the API server confirms that.
    pub(super) async fn finalize_endpoint(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        let failed = |source| ReconcileError::Endpoint { pod: id.to_string(), source };
        let store = EndpointStore::new(self.kube.clone());
        let name = self.state.read(|state| state.endpoint_name(id));
        let found = store.get(&name).await.map_err(failed)?;
        let Some(found) = found.filter(|found| slim::is_finalizing(&found.metadata)) else { return Ok(()) };
        store.delete(&found).await.map_err(failed)?;
        info!(pod = %id, uid = %id.uid, "endpoint without addresses is deleted");
        Ok(())
    }

    /// Removes an endpoint that was made to outlive its pod, names nothing that anybody holds, and waits for no pod.
    pub(super) async fn remove_unused_endpoint(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        let failed = |source| ReconcileError::Endpoint { pod: id.to_string(), source };
        let store = EndpointStore::new(self.kube.clone());
        let name = self.state.read(|state| state.endpoint_name(id));
        let Some(found) = store.get(&name).await.map_err(failed)? else { return Ok(()) };
        let Some(status) = found.status.as_ref().filter(|status| status.current.uid == id.uid.as_str())
        else {
            return Ok(());
        };
        let workload = Workload {
            kind: status.owner_controller_type.as_str().into(),
            name: status.owner_controller_name.as_str().into(),
        };
        // Upstream's is called as the machine, and does not name the pod.
        let is_machines = name != id.name || is_of_machine(status, &name);
        let virtual_machine = is_machines.then(|| name.name().into());
        let owner = Owner { pod: id.clone(), workload: Some(workload), virtual_machine };
        if self.names_upstreams_pool(status).await.map_err(failed)? {
            return Ok(());
        }
        if self.successor(&owner).await? == Successor::Expected || self.read_pod(id).await?.is_some() {
            return Ok(());
        }
        store.delete(&found).await.map_err(failed)?;
        info!(pod = %id, uid = %id.uid, "endpoint that waited for no pod is deleted");
        Ok(())
    }

    /// Whether an endpoint has an address of a pool that is not imported yet: what it says is needed for that.
    async fn names_upstreams_pool(&self, status: &SpiderEndpointStatus) -> Result<bool, ApiFailure> {
        let pools = Api::<PoolObject>::all(self.kube.client());
        for entry in &status.current.ips {
            for pool in [&entry.ipv4_pool, &entry.ipv6_pool].into_iter().flatten() {
                let found = self.kube.read(pools.get_opt(pool)).await?;
                if found.is_some_and(|pool| AllocationOwner::of(&pool) == AllocationOwner::Upstream) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(super) async fn write_endpoint(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        let is_same = |pod: &Pod| pod.identity == *id && pod.stage == PodStage::Alive;
        let Some(pod) = self.read_pod(id).await?.filter(is_same) else { return Ok(()) };
        let annotations = match PodAnnotations::parse(&pod.annotations) {
            Ok(annotations) => annotations,
            Err(error) => {
                warn!(pod = %id, %error, "invalid annotations, writing the endpoint without what they ask for");
                PodAnnotations::default()
            }
        };
        let record = self.state.read(|state| {
            let owner = state.addresses.owner(id)?;
            let find = |name: &PoolName| state.pools.get(name.as_str())?.spec()?.clone().ok();
            let ips = endpoint::restore(state.addresses.bound(id), &annotations, find);
            let bare = || Workload { kind: "Pod".into(), name: id.name.name().into() };
            let owner =
                Owner { workload: owner.workload.clone().or_else(|| Some(bare())), ..(**owner).clone() };
            let kept = self.settings.kept;
            let of_set = kept.stateful_sets && pod.owner.as_ref().is_some_and(OwnerRef::is_stateful_set);
            let of_machine = kept.virtual_machines && owner.virtual_machine.is_some();
            let lifetime = if of_set || of_machine { Lifetime::Name } else { Lifetime::Pod };
            Some(Record::new(&pod, &owner, ips, lifetime))
        });
        let Some(record) = record else { return Ok(()) };
        let written = EndpointStore::new(self.kube.clone()).write(&record).await;
        written.map_err(|source| ReconcileError::Endpoint { pod: id.to_string(), source })?;
        self.metrics.endpoints_written.inc();
        info!(pod = %id, uid = %id.uid, "missing endpoint written");
        Ok(())
    }
}
