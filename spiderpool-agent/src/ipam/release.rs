//! Freeing what belongs to a pod that is not alive any more, or keeping it for the next one of its name. The endpoint goes
//! before the last address that is freed: while there is an endpoint there are addresses, which the sweep or, of those that are
//! kept, the leader finds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use spiderpool_api::agent::ipam::IpamDelArgs;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::release::{
    Disposition, Evidence, NodeState, PodEvidence, ReleasePolicy, SandboxState, plan_release,
};
use spiderpool_core::ipam::{AddressState, Holding, Owner, Successor};
use spiderpool_core::names::PodIdentity;
use tracing::{debug, info, warn};

use super::allocator::{AddressAllocator, AddressObject, Freed};
use super::endpoint_queue::EndpointQueue;
use super::error::ReleaseError;
use super::pods::Pods;
use super::successors::Successors;
use crate::watches::Pod;

/// Frees addresses of pods, in the order that a crash does not turn into a leak.
pub(super) struct Releaser {
    pub(super) pods: Pods,
    pub(super) allocator: Arc<AddressAllocator>,
    pub(super) endpoints: Arc<EndpointQueue>,
    pub(super) successors: Successors,
}

impl Releaser {
    /// Of what a pod held that has ended, frees what is chosen, or keeps it for the next pod of its name if one will come;
    /// what was freed. The pod must be locked.
    pub(super) async fn end(
        &self,
        pod: &PodIdentity,
        is_chosen: impl Fn(&Holding) -> bool,
    ) -> Result<Vec<IpAddr>, ReleaseError> {
        let (chosen, others) = self.choose(pod, is_chosen).await?;
        let Some(owner) = chosen.first().map(|object| Arc::clone(&object.holding.owner)) else {
            return Ok(Vec::new());
        };
        let successor = self.successors.of(&owner).await;
        match successor.map_err(|source| ReleaseError::Successor { pod: pod.name.clone(), source })? {
            Successor::Expected => self.keep(&owner, chosen).await.map(|()| Vec::new()),
            Successor::None => self.free_all(&owner, chosen, others.is_empty()).await,
        }
    }

    /// Frees the addresses of a pod that are chosen, and its endpoint if nothing is left; what was freed. The pod must be
    /// locked.
    pub(super) async fn free(
        &self,
        pod: &PodIdentity,
        is_chosen: impl Fn(&Holding) -> bool,
    ) -> Result<Vec<IpAddr>, ReleaseError> {
        let (chosen, others) = self.choose(pod, is_chosen).await?;
        match chosen.first().map(|object| Arc::clone(&object.holding.owner)) {
            Some(owner) => self.free_all(&owner, chosen, others.is_empty()).await,
            None => Ok(Vec::new()),
        }
    }

    /// What the pod holds: what is chosen of it, and the others.
    async fn choose(
        &self,
        pod: &PodIdentity,
        is_chosen: impl Fn(&Holding) -> bool,
    ) -> Result<(Vec<AddressObject>, Vec<AddressObject>), ReleaseError> {
        let known = self.allocator.finish_pending_of(&pod.uid).await;
        known.map_err(|source| ReleaseError::Pending { pod: pod.name.clone(), source })?;
        let held = self.allocator.holdings().read(|index| index.of_pod(&pod.uid));
        let (chosen, others): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|object| is_chosen(&object.holding));
        if chosen.is_empty() {
            debug!(uid = %pod.uid, others = others.len(), "nothing to free");
        }
        Ok((chosen, others))
    }

    /// Keeps addresses. The endpoint first: by it the next pod finds them.
    async fn keep(&self, owner: &Owner, kept: Vec<AddressObject>) -> Result<(), ReleaseError> {
        let name = || owner.pod.name.clone();
        let handed_on = self.endpoints.hand_on(owner, self.allocator.node().as_str(), &kept).await;
        handed_on.map_err(|source| ReleaseError::Endpoint { pod: name(), source })?;
        let keeping = kept.iter().map(|object| async move { (object, self.allocator.keep(object).await) });
        for (object, outcome) in join_all(keeping).await {
            let Holding { address, pool, .. } = &*object.holding;
            outcome.map_err(|source| ReleaseError::Address { address: *address, pod: name(), source })?;
            info!(%address, %pool, uid = %owner.pod.uid, "kept for the next pod of its StatefulSet or virtual machine");
        }
        Ok(())
    }

    async fn free_all(
        &self,
        owner: &Owner,
        chosen: Vec<AddressObject>,
        is_all: bool,
    ) -> Result<Vec<IpAddr>, ReleaseError> {
        let pod = &owner.pod;
        let name = || pod.name.clone();
        if is_all {
            let removed = self.endpoints.remove(owner).await;
            removed.map_err(|source| ReleaseError::Endpoint { pod: name(), source })?;
        }
        let freed = chosen.iter().map(|object| async move { (object, self.allocator.free(object).await) });
        let mut done = Vec::new();
        for (object, outcome) in join_all(freed).await {
            let Holding { address, pool, .. } = &*object.holding;
            let outcome =
                outcome.map_err(|source| ReleaseError::Address { address: *address, pod: name(), source })?;
            match outcome {
                Freed::Yes => {
                    info!(%address, %pool, uid = %pod.uid, "freed");
                    done.push(address.addr());
                }
                Freed::Adopted => debug!(%address, %pool, uid = %pod.uid, "a newer sandbox has the address"),
                Freed::Unreadable => {
                    warn!(%address, %pool, uid = %pod.uid, "not freed: the SpiderIPAddress cannot be parsed any more, correct or delete it");
                }
            }
        }
        Ok(done)
    }

    /// The pod that has the name, for a DEL of the pod with this UID. Nothing comes back to life: the watch is
    /// believed if it says that the pod is not alive.
    pub(super) async fn found(&self, pod: &PodIdentity) -> Result<Option<Arc<Pod>>, ReleaseError> {
        let known = self.pods.known(&pod.name);
        let is_not_alive = |known: &Arc<Pod>| known.identity.uid == pod.uid && known.stage != PodStage::Alive;
        if let Some(known) = known.filter(is_not_alive) {
            return Ok(Some(known));
        }
        let read = self.pods.read(&pod.name).await;
        read.map_err(|source| ReleaseError::Pod { pod: pod.name.clone(), source })
    }

    /// What a DEL frees: what this sandbox uses on this NIC. Others may still be up. What a pod that is alive holds stays
    /// with it for its next sandbox; the object says from then on that none uses it.
    pub(super) async fn free_nic(&self, pod: &PodIdentity, args: &IpamDelArgs) -> Result<(), ReleaseError> {
        let found = self.found(pod).await?;
        let is_used = |holding: &Holding| {
            holding.container_id.as_ref() == Some(&args.container_id) && holding.nic == args.if_name
        };
        let alive = found.as_ref().filter(|found| found.identity == *pod && found.stage == PodStage::Alive);
        if let Some(alive) = alive {
            // An ADD whose outcome is unknown stays so: the next one repeats it. Only of a pod whose containers have run a
            // NIC may have been unplugged: one whose sandboxes fail, one after the other, costs no writes here.
            return if alive.has_started { self.detach(pod, is_used).await } else { Ok(()) };
        }
        let evidence = evidence(found.as_deref(), SandboxState::TornDown, None, None);
        let is_ended = |holding: &Holding| is_freed(plan_unless_kept(holding, &evidence));
        // No sandbox uses what an earlier DEL has detached while the pod was alive.
        let is_detached = |holding: &Holding| holding.is_detached && holding.nic == args.if_name;
        let ended = |holding: &Holding| (is_used(holding) || is_detached(holding)) && is_ended(holding);
        self.end(pod, ended).await.map(drop)
    }

    /// Writes that no sandbox uses the addresses of a pod that are chosen. All are tried; the first failure is answered.
    async fn detach(
        &self,
        pod: &PodIdentity,
        is_chosen: impl Fn(&Holding) -> bool,
    ) -> Result<(), ReleaseError> {
        let mut held = self.allocator.holdings().read(|index| index.of_pod(&pod.uid));
        held.retain(|object| object.holding.state == AddressState::Bound && is_chosen(&object.holding));
        let detached = held.iter().map(|object| async move {
            let address = object.holding.address;
            let outcome = self.allocator.detach(object).await;
            outcome.map_err(|source| ReleaseError::Address { address, pod: pod.name.clone(), source })?;
            info!(%address, uid = %pod.uid, "the pod is alive and keeps its address for its next sandbox");
            Ok(())
        });
        join_all(detached).await.into_iter().collect()
    }
}

/// What this node's agent knows of a pod's end. Its own node answers.
pub(super) fn evidence(
    found: Option<&Pod>,
    sandbox: SandboxState<Instant>,
    may_run_until: Option<Instant>,
    finishes_at: Option<Instant>,
) -> Evidence<'_, Instant> {
    let pod = found.map(|pod| PodEvidence {
        uid: &pod.identity.uid,
        stage: pod.stage,
        has_stopped: pod.has_stopped,
        has_running: pod.has_running,
        grace_end: finishes_at,
    });
    Evidence { now: Instant::now(), pod, sandbox, node: NodeState::Ready, may_run_until }
}

/// What would become of an address if no other pod of its owner's name came. Whether one does is asked when the pod has
/// ended.
pub(super) fn plan_unless_kept(holding: &Holding, evidence: &Evidence<'_, Instant>) -> Disposition<Instant> {
    match holding.state {
        AddressState::Kept => Disposition::Keep,
        _ => plan_release(holding, evidence, ReleasePolicy::default(), Successor::None),
    }
}

/// Whether the address is to be freed.
pub(super) fn is_freed(disposition: Disposition<Instant>) -> bool {
    matches!(disposition, Disposition::Free(_))
}
