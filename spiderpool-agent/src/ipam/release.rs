//! DEL: frees what belongs to a NIC of a pod that is not alive any more. The endpoint goes before the last address:
//! while there is an endpoint there are addresses, which the sweep finds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use spiderpool_api::agent::ipam::{IpamBatchDelArgs, IpamDelArgs};
use spiderpool_core::ipam::Holding;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::release::{
    Disposition, Evidence, NodeState, PodEvidence, ReleasePolicy, SandboxState, plan_release,
};
use spiderpool_core::names::{ContainerId, PodIdentity, PodName, PodUid};
use tracing::{Instrument, debug, info, info_span, warn};

use super::Ipam;
use super::allocator::AddressAllocator;
use super::endpoint_queue::EndpointQueue;
use super::error::ReleaseError;
use super::pods::Pods;
use crate::watches::Pod;

/// Frees addresses of pods, in the order that a crash does not turn into a leak.
pub(super) struct Releaser {
    pub(super) pods: Pods,
    pub(super) allocator: Arc<AddressAllocator>,
    pub(super) endpoints: Arc<EndpointQueue>,
}

impl Releaser {
    /// Frees the addresses of a pod that are chosen, and its endpoint if nothing is left. The pod must be locked.
    pub(super) async fn free(
        &self,
        pod: &PodIdentity,
        is_chosen: impl Fn(&Holding) -> bool,
    ) -> Result<(), ReleaseError> {
        let name = || pod.name.clone();
        let known = self.allocator.finish_pending_of(&pod.uid).await;
        known.map_err(|source| ReleaseError::Pending { pod: name(), source })?;
        let held = self.allocator.holdings().read(|index| index.of_pod(&pod.uid));
        let (chosen, others): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|object| is_chosen(&object.holding));
        if chosen.is_empty() {
            debug!(uid = %pod.uid, others = others.len(), "nothing to free");
            return Ok(());
        }
        if others.is_empty() {
            let removed = self.endpoints.remove(pod).await;
            removed.map_err(|source| ReleaseError::Endpoint { pod: name(), source })?;
        }
        let freed = chosen.iter().map(|object| async move { (object, self.allocator.free(object).await) });
        for (object, outcome) in join_all(freed).await {
            let Holding { address, pool, .. } = &*object.holding;
            outcome.map_err(|source| ReleaseError::Address { address: *address, pod: name(), source })?;
            info!(%address, %pool, uid = %pod.uid, "freed");
        }
        Ok(())
    }

    /// The pod that has the name, for a DEL of the pod with this UID. Nothing comes back to life: the watch is
    /// believed if it says that the pod is not alive.
    async fn found(&self, pod: &PodIdentity) -> Result<Option<Arc<Pod>>, ReleaseError> {
        let known = self.pods.known(&pod.name);
        let is_not_alive = |known: &Arc<Pod>| known.identity.uid == pod.uid && known.stage != PodStage::Alive;
        if let Some(known) = known.filter(is_not_alive) {
            return Ok(Some(known));
        }
        let read = self.pods.read(&pod.name).await;
        read.map_err(|source| ReleaseError::Pod { pod: pod.name.clone(), source })
    }

    /// What a DEL frees: what this sandbox uses on this NIC, unless the pod is alive. Others may still be up.
    async fn free_nic(&self, pod: &PodIdentity, args: &IpamDelArgs) -> Result<(), ReleaseError> {
        let found = self.found(pod).await?;
        let evidence = evidence(found.as_deref(), SandboxState::TornDown, None);
        let is_chosen = |holding: &Holding| {
            holding.container_id.as_ref() == Some(&args.container_id)
                && holding.nic == args.if_name
                && is_freed(plan_release(holding, &evidence, ReleasePolicy::default()))
        };
        self.free(pod, is_chosen).await
    }
}

/// What this node's agent knows of a pod's end. Its own node answers.
pub(super) fn evidence(
    found: Option<&Pod>,
    sandbox: SandboxState,
    may_run_until: Option<Instant>,
) -> Evidence<'_, Instant> {
    let pod = found.map(|pod| PodEvidence {
        uid: &pod.identity.uid,
        stage: pod.stage,
        has_stopped: pod.has_stopped,
        grace_end: None,
    });
    Evidence { now: Instant::now(), pod, sandbox, node: NodeState::Ready, may_run_until }
}

/// Whether the address is to be freed.
pub(super) fn is_freed(disposition: Disposition<Instant>) -> bool {
    matches!(disposition, Disposition::Free(_))
}

impl Ipam {
    /// Serves DELETE `/ipam/ip`. The work goes on when the caller is gone.
    pub(crate) async fn release(self: &Arc<Self>, args: IpamDelArgs) -> Result<(), ReleaseError> {
        let span =
            info_span!("release", pod = %args.pod, nic = %args.if_name, container = %args.container_id);
        let ipam = Arc::clone(self);
        self.counted(async move { ipam.release_locked(&args).await }.instrument(span)).await
    }

    /// Serves DELETE `/ipam/ips`: frees all addresses of a sandbox, also of a pod that is alive.
    pub(crate) async fn release_all(self: &Arc<Self>, args: IpamBatchDelArgs) -> Result<(), ReleaseError> {
        let span = info_span!("release all", pod = %args.pod, container = %args.container_id);
        let ipam = Arc::clone(self);
        self.counted(async move { ipam.release_all_locked(&args).await }.instrument(span)).await
    }

    async fn counted(
        &self,
        work: impl Future<Output = Result<(), ReleaseError>> + Send + 'static,
    ) -> Result<(), ReleaseError> {
        let begun = Instant::now();
        self.metrics.release_begins();
        let outcome = tokio::spawn(work).await.unwrap_or(Err(ReleaseError::Broken));
        self.metrics.release_time.observe(begun.elapsed());
        if let Err(error) = &outcome {
            self.metrics.release_failed();
            warn!(%error, "release failed, the sweep tries again");
            self.sweeper.wake();
        }
        outcome
    }

    async fn release_locked(&self, args: &IpamDelArgs) -> Result<(), ReleaseError> {
        self.start.wait().await?;
        let waiting = Instant::now();
        let _lock = self.pod_locks.lock(args.pod.clone()).await;
        self.metrics.release_wait.observe(waiting.elapsed());
        for uid in self.uids(&args.pod, args.pod_uid.as_ref(), &args.container_id) {
            let pod = PodIdentity { name: args.pod.clone(), uid };
            self.releaser.free_nic(&pod, args).await?;
        }
        Ok(())
    }

    async fn release_all_locked(&self, args: &IpamBatchDelArgs) -> Result<(), ReleaseError> {
        self.start.wait().await?;
        if args.is_release_conflict_ips {
            self.check_conflict_release(&args.pod).await?;
        }
        let _lock = self.pod_locks.lock(args.pod.clone()).await;
        for uid in self.uids(&args.pod, args.pod_uid.as_ref(), &args.container_id) {
            let pod = PodIdentity { name: args.pod.clone(), uid };
            let is_sandboxs = |holding: &Holding| holding.container_id.as_ref() == Some(&args.container_id);
            self.releaser.free(&pod, is_sandboxs).await?;
        }
        Ok(())
    }

    /// Whether addresses may be released because of a conflict.
    async fn check_conflict_release(&self, name: &PodName) -> Result<(), ReleaseError> {
        if !self.release_conflicts {
            return Err(ReleaseError::Stateless);
        }
        let read = self.pods.read(name).await;
        let Some(pod) = read.map_err(|source| ReleaseError::Pod { pod: name.clone(), source })? else {
            return Ok(());
        };
        let top = self.workloads.top(&pod).await;
        let top = top.map_err(|source| ReleaseError::Owner { pod: name.clone(), source })?;
        if self.stateful_set && &*top.kind == "StatefulSet" {
            return Err(ReleaseError::Stateful);
        }
        Ok(())
    }

    /// The UIDs that a request is about: its own, or those of the sandbox that it names.
    fn uids(&self, pod: &PodName, uid: Option<&PodUid>, container_id: &ContainerId) -> BTreeSet<PodUid> {
        match uid {
            Some(uid) => [uid.clone()].into(),
            None => self.allocator.holdings().read(|index| index.uids(pod, container_id)),
        }
    }
}
