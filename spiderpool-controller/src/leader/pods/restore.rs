//! Address objects that were lost (deleted by hand, an older snapshot of etcd) are written again, as the endpoints of
//! running pods have them.

use kube::Api;
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType};
use spiderpool_api::crd::{SpiderIPAddress, SpiderIPAddressSpec};
use spiderpool_api::endpoint;
use spiderpool_api::pod::{self, Pod};
use spiderpool_core::ipam::Holding;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::names::{PodIdentity, PodName};
use spiderpool_runtime::endpoints::EndpointStore;
use spiderpool_runtime::kubernetes::publish_event;
use spiderpool_runtime::pools::AllocationOwner;
use tracing::{error, warn};

use super::actuator::Actuator;
use super::error::ReconcileError;

impl Actuator {
    /// Writes again what the pod's endpoint names, if the API server confirms pod and endpoint.
    pub(super) async fn restore_addresses(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        let is_same = |pod: &Pod| pod.identity == *id && pod.stage == PodStage::Alive;
        let Some(pod) = self.read_pod(id).await?.filter(is_same) else { return Ok(()) };
        let name = self.state.read(|state| state.endpoint_name(id));
        let found = EndpointStore::new(self.kube.clone()).get(&name).await;
        let found = found.map_err(|source| ReconcileError::Endpoint { pod: id.to_string(), source })?;
        let status = found.and_then(|endpoint| endpoint.status);
        let Some(status) = status.filter(|status| status.current.uid == id.uid.as_str()) else {
            return Ok(());
        };
        let lost = self.state.read(|state| {
            let mut lost = endpoint::lost_holdings(&name, &status, id, state.addresses.of_pod(id));
            // What upstream's agents have allocated is not lost: it is imported with its pool.
            lost.retain(|holding| {
                let pool = state.pools.get(holding.pool.as_str());
                pool.is_none_or(|pool| pool.owner() != AllocationOwner::Upstream)
            });
            lost
        });
        for holding in &lost {
            self.restore_address(&pod, holding).await?;
        }
        Ok(())
    }

    async fn restore_address(&self, pod: &Pod, lost: &Holding) -> Result<(), ReconcileError> {
        let id = &pod.identity;
        let failed = |source| ReconcileError::Restore { address: lost.ip(), pod: id.to_string(), source };
        let api = Api::<SpiderIPAddress>::all(self.kube.client());
        let object = SpiderIPAddress::from(&Holding { grace: Some(pod.grace), ..lost.clone() });
        match self.kube.write(api.create(&PostParams::default(), &object)).await {
            Ok(_) => {
                self.metrics.addresses_restored.inc();
                warn!(address = %lost.ip(), pool = %lost.pool, pod = %id, uid = %id.uid, "SpiderIPAddress of a running pod was missing, written again");
                let note = format!(
                    "the SpiderIPAddress {} of the running Pod was missing and has been written again",
                    object_name(lost.ip())
                );
                self.publish(&id.name, &pod.object_uid, "AddressRestored", note).await;
                Ok(())
            }
            Err(failure) if failure.is_already_exists() => {
                let found = self.kube.read(api.get_opt(&object_name(lost.ip()))).await.map_err(failed)?;
                if let Some(found) = found.filter(|found| found.spec.pod_uid != id.uid.as_str()) {
                    self.report_conflict(pod, lost, &found.spec).await;
                }
                Ok(())
            }
            Err(failure) => Err(failed(failure)),
        }
    }

    /// Two pods use one address, and neither can be helped without a restart: both are named to both.
    async fn report_conflict(&self, pod: &Pod, lost: &Holding, other: &SpiderIPAddressSpec) {
        let id = &pod.identity;
        self.metrics.addresses_lost.inc();
        let address = lost.ip();
        let holder = format!("{}/{}", other.pod_namespace, other.pod_name);
        error!(%address, pod = %id, uid = %id.uid, holder, "the address of a running pod was given to another one");
        let note = format!(
            "{address} is used by Pod {id} and by Pod {holder}: the SpiderIPAddress of the first was deleted while it \
             ran. Delete Pod {id}, so that it gets another address"
        );
        self.publish(&id.name, &pod.object_uid, "AddressConflict", note.clone()).await;
        if let Ok(name) = PodName::new(other.pod_namespace.as_str(), other.pod_name.as_str()) {
            self.publish(&name, &other.pod_uid, "AddressConflict", note).await;
        }
    }

    /// A warning that `kubectl describe pod` shows. Failing to write it is logged only.
    async fn publish(&self, pod: &PodName, object_uid: &str, reason: &str, note: String) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Restore".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &pod::reference(pod, object_uid)).await;
    }
}
