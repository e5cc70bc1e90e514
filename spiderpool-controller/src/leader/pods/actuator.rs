//! Frees a pod's addresses or writes its endpoint, after the API server has confirmed the watches.

use std::time::{Instant, SystemTime};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::Recorder;
use spiderpool_api::crd::{AddressState, SpiderEndpointStatus, SpiderIPAddress};
use spiderpool_api::endpoint::{self, Lifetime, Record};
use spiderpool_api::node::nodes;
use spiderpool_api::node_lease;
use spiderpool_api::pod::{Pod, PodObject};
use spiderpool_api::upstream::is_of_machine;
use spiderpool_core::ipam::address_name::object_name;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::release::{FreeReason, NodeState};
use spiderpool_core::ipam::{Holding, Owner, PodAnnotations, Successor, Workload};
use spiderpool_core::names::{NodeName, PodIdentity, PodName, PoolName};
use spiderpool_runtime::endpoints::EndpointStore;
use spiderpool_runtime::kubernetes::{ApiFailure, Deletion, Kubernetes, Preconditions};
use spiderpool_runtime::pools::{AllocationOwner, PoolObject};
use spiderpool_runtime::successors::read_successor;
use spiderpool_runtime::watch::Shared;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::GcSettings;
use super::error::ReconcileError;
use super::freed::FreedAddresses;
use crate::leader::metrics::Metrics;
use crate::leader::state::slim;
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

    async fn read_pod_of(&self, name: &PodName) -> Result<Option<Pod>, ReconcileError> {
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
    async fn successor(&self, owner: &Owner) -> Result<Successor, ReconcileError> {
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

    /// The endpoint first: by it the next pod finds what is kept.
    async fn keep(&self, owner: &Owner, addresses: &[Holding]) -> Result<(), ReconcileError> {
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
    async fn free_kept(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
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

    async fn free_address(
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

    /// Removes the finalizer of an endpoint that is being deleted, if the API server confirms that.
    async fn finalize_endpoint(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
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

    async fn write_endpoint(&self, id: &PodIdentity) -> Result<(), ReconcileError> {
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
