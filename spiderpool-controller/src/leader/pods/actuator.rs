//! Acts on a pod after the API server has confirmed the watches; frees its addresses.

use std::time::{Instant, SystemTime};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::runtime::events::Recorder;
use spiderpool_api::crd::SpiderIPAddress;
use spiderpool_api::node::nodes;
use spiderpool_api::node_lease;
use spiderpool_api::pod::{Pod, PodObject};
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::release::{FreeReason, NodeState};
use spiderpool_core::ipam::{Holding, Owner, Successor};
use spiderpool_core::names::{NodeName, PodIdentity, PodName};
use spiderpool_runtime::endpoints::EndpointStore;
use spiderpool_runtime::kubernetes::{Deletion, Kubernetes, Preconditions};
use spiderpool_runtime::successors::read_successor;
use spiderpool_runtime::watch::Shared;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::GcSettings;
use super::error::ReconcileError;
use super::freed::FreedAddresses;
use crate::leader::metrics::Metrics;
use crate::leader::state::{ClusterState, ObservedPod, PodAction, SlimNode};

/// Acts on one pod. Cheap to clone.
#[derive(Clone)]
pub(super) struct Actuator {
    pub(super) kube: Kubernetes,
    /// Where the agents' Leases are.
    pub(super) leases: Api<Lease>,
    pub(super) state: Shared<ClusterState>,
    pub(super) settings: GcSettings,
    pub(super) metrics: Metrics,
    pub(super) recorder: Recorder,
    pub(super) freed: FreedAddresses,
}

impl Actuator {
    /// Does what the indexes call for, if the API server confirms it.
    pub(super) async fn act(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        match self.evaluate(id).0 {
            PodAction::Free(_) if self.settings.enabled => self.end(id).await,
            PodAction::Keep => self.end(id).await,
            PodAction::HandOver => self.hand_over(id).await,
            PodAction::FreeKept => self.free_kept(id).await,
            PodAction::FreeQuarantined => self.free_quarantined(id).await,
            PodAction::WriteEndpoint => self.write_endpoint(id).await,
            PodAction::RestoreAddresses => self.restore_addresses(id).await,
            PodAction::FinalizeEndpoint => self.finalize_endpoint(id).await,
            _ => Ok(()),
        }
    }

    /// Tells of what was freed, until shutdown.
    pub(super) async fn report_freed(&self, shutdown: &CancellationToken) {
        self.freed.report(&self.state, &self.recorder, shutdown).await;
    }

    /// What the indexes call for, and at what time.
    pub(super) fn evaluate(&self, id: &PodIdentity) -> (PodAction, Instant) {
        let policy = self.settings.policy();
        (self.state.read(|state| state.evaluate(id, policy)), policy.now)
    }

    pub(super) async fn read_pod(&self, id: &PodIdentity) -> Result<Option<Pod>, ReconcileError> {
        self.read_pod_of(&id.name).await
    }

    pub(super) async fn read_pod_of(&self, name: &PodName) -> Result<Option<Pod>, ReconcileError> {
        let api = Api::<PodObject>::namespaced(self.kube.client(), name.namespace());
        let found = self.kube.read(api.get_opt(name.name())).await;
        let found = found.map_err(|source| ReconcileError::ReadPod { pod: name.to_string(), source })?;
        let found = found.map(Pod::try_from).transpose();
        found.map_err(|source| ReconcileError::UnreadablePod { pod: name.to_string(), source })
    }

    /// Read live: a node that has just come back may still run a pod that is overdue or gone.
    async fn node_state(&self, name: &NodeName) -> Result<NodeState<Instant>, ReconcileError> {
        let failed = |source| ReconcileError::ReadNode { node: name.to_string(), source };
        let found = self.kube.read(nodes(self.kube.client()).get_opt(name.as_str())).await;
        let readiness = found.map_err(failed)?.map(SlimNode::from).map(|node| node.readiness());
        // A watch that is behind makes an agent look silent that is not.
        let lease = self.kube.read(self.leases.get_opt(&node_lease::name(name))).await.map_err(failed)?;
        if let Some(lease) = lease {
            self.state.write(|state| state.node_leases.insert(lease.into()));
        }
        Ok(self.state.read(|state| state.nodes.state(name.as_str(), readiness, Instant::now())))
    }

    /// Read live: the watch may be behind a StatefulSet that is scaled.
    pub(super) async fn successor(&self, owner: &Owner) -> Result<Successor, ReconcileError> {
        let read = read_successor(&self.kube, owner, self.settings.kept).await;
        read.map_err(|source| ReconcileError::ReadSuccessor { pod: owner.pod.to_string(), source })
    }

    /// Of a pod that has ended: frees what it held, or keeps it for the next one.
    async fn end(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        let owner = self.state.read(|state| state.addresses.owner(id).cloned());
        let successor = match &owner {
            Some(owner) => self.successor(owner).await?,
            None => Successor::None,
        };
        let found = self.read_pod(id).await?;
        let node = match self.state.read(|state| state.node(id)) {
            Some(node) => self.node_state(&node).await?,
            None => NodeState::NotReady { settled: Instant::now() },
        };
        let observed = found.as_ref().map(|pod| ObservedPod {
            uid: &pod.identity.uid,
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion,
        });
        let (action, addresses) = self.state.read(|state| {
            let action = state.evaluate_observed(id, observed, node, successor, self.settings.policy());
            (action, state.addresses.bound(id).cloned().collect::<Vec<_>>())
        });
        if let (PodAction::Keep, Some(owner)) = (action, &owner) {
            return self.keep(owner, &addresses).await;
        }
        let (PodAction::Free(cause), true) = (action, self.settings.enabled) else {
            debug!(pod = %id, uid = %id.uid, ?action, "the API server does not confirm the watches");
            return Ok(());
        };
        // The endpoint goes first: an address that is left makes the pod be evaluated again.
        let store = EndpointStore::new(self.kube.clone());
        let name = self.state.read(|state| state.endpoint_name(id));
        let removed = store.remove(&name, id).await;
        removed.map_err(|source| ReconcileError::Endpoint { pod: id.to_string(), source })?;
        for address in addresses {
            self.free_address(id, &address, cause).await?;
        }
        Ok(())
    }

    /// Frees what the pod was given and somebody else was seen using, if the API server confirms that the time is over.
    async fn free_quarantined(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
        let quarantined: Vec<_> = self.state.read(|state| state.addresses.quarantined(id).cloned().collect());
        let api = Api::<SpiderIPAddress>::all(self.kube.client());
        for holding in &quarantined {
            let (address, pod) = (holding.ip(), id.to_string());
            let found = self.kube.read(api.get_opt(&object_name(address))).await;
            let found = found.map_err(|source| ReconcileError::Address { address, pod, source })?;
            let found = found.and_then(|found| Holding::try_from(&found).ok());
            let now = SystemTime::now();
            if !found.is_some_and(|found| found.owner.pod == *id && found.is_quarantine_over(now)) {
                continue;
            }
            // First: what the endpoint of a pod that is alive names, and whose object is missing, is written again. The agent
            // has taken it out, unless it ended before that.
            let (name, freed) = (holding.owner.endpoint_name(), std::slice::from_ref(holding));
            let forgotten = EndpointStore::new(self.kube.clone()).forget(&name, id, freed).await;
            forgotten.map_err(|source| ReconcileError::Endpoint { pod: id.to_string(), source })?;
            self.free_address(id, holding, FreeReason::QuarantineOver).await?;
        }
        Ok(())
    }

    pub(super) async fn free_address(
        &self,
        id: &PodIdentity,
        known: &Holding,
        cause: FreeReason,
    ) -> Result<(), ReconcileError> {
        let address = known.ip();
        let failed = |source| ReconcileError::Address { address, pod: id.to_string(), source };
        let api = Api::<SpiderIPAddress>::all(self.kube.client());
        let found = self.kube.read(api.get_opt(&object_name(address))).await.map_err(failed)?;
        let is_held = |found: &SpiderIPAddress| {
            found.spec.pod_uid == id.uid.as_str() && found.spec.state == known.state
        };
        let Some(found) = found.filter(is_held) else { return Ok(()) };
        // An ADD has taken it back: what called for freeing it may not be so any more.
        if known.is_detached && !Holding::try_from(&found).is_ok_and(|now| now.is_detached) {
            return Err(ReconcileError::Changed { address, pod: id.to_string() });
        }
        match self.kube.delete(&api, &Preconditions::from_meta(&found.metadata)).await.map_err(failed)? {
            Deletion::Done => {
                self.metrics.freed(cause);
                self.freed.add(known, cause);
                info!(%address, pool = found.spec.pool, pod = %id, uid = %id.uid, reason = cause.as_str(), "address freed");
                Ok(())
            }
            Deletion::Changed => Err(ReconcileError::Changed { address, pod: id.to_string() }),
        }
    }
}
