//! Frees what belongs to pods that are gone or finished although no DEL came for it, or one that failed, and the addresses
//! of NICs that were unplugged. It never takes an
//! address from a pod in its grace period: the runtime's DEL says when that pod's network is down.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use backon::{BackoffBuilder as _, Retryable as _};
use spiderpool_api::crd::EndpointIp;
use spiderpool_api::endpoint::{self, Record};
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::release::{
    Disposition, FreeReason, LeaveReason, REATTACH_TIME, ReleasePolicy, SandboxState, plan_owner_release,
};
use spiderpool_core::ipam::{AddressState, Holding, Owner, PodAnnotations, PoolTable};
use spiderpool_core::names::{PodIdentity, PodName, PodUid, PoolName};
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::ApiFailure;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::allocator::AddressAllocator;
use super::endpoint_queue::EndpointQueue;
use super::keyed_mutex::KeyedMutex;
use super::metrics::IpamMetrics;
use super::pod_events::PodEvents;
use super::pods::Pods;
use super::reassertion::Reassertion;
use super::release::{Releaser, evidence, is_freed, plan_unless_kept};
use super::workloads::Workloads;
use crate::announce::Announcement;
use crate::node_events::NodeEvents;
use crate::processes::running_pods;
use crate::watches::{LocalPodIndex, Pod, PoolIndex, PoolSpecs, Shared};

/// A pod that has just gone is left to the runtime's DEL for this long.
const SWEEP_DELAY: Duration = Duration::from_secs(5);
/// What the watch does not call running is looked at this often.
const INTERVAL: Duration = Duration::from_mins(3);
/// A pod that has processes although it should have ended is looked at this often.
const RUNNING_INTERVAL: Duration = Duration::from_secs(30);

/// While virtual machines move to this node it is looked this often whether they have moved.
const SHARING_INTERVAL: Duration = Duration::from_secs(5);

/// What a sweep of several pods left to be done.
#[derive(Debug, Default)]
struct SweepOutcome {
    failed: bool,
    /// Pods that should have ended have processes.
    has_overdue: bool,
    /// When the first of what is still waited for is over.
    waits_until: Option<Instant>,
    /// What was freed, and of which pods.
    freed: Vec<(IpAddr, PodName)>,
}

/// What came of sweeping a pod.
#[derive(Debug)]
struct Swept {
    /// When the pod is to be swept again, if nothing changes before.
    until: Option<Instant>,
    /// It should have ended and has processes.
    is_overdue: bool,
    /// What was freed.
    freed: Vec<IpAddr>,
}

/// Compares what the node's pods hold with the pods.
pub(super) struct Sweeper {
    pub(super) pods: Pods,
    pub(super) pools: Shared<PoolIndex>,
    pub(super) pool_specs: PoolSpecs,
    pub(super) workloads: Arc<Workloads>,
    pub(super) allocator: Arc<AddressAllocator>,
    pub(super) releaser: Arc<Releaser>,
    pub(super) endpoints: Arc<EndpointQueue>,
    pub(super) pod_locks: KeyedMutex<PodName>,
    pub(super) metrics: IpamMetrics,
    pub(super) events: NodeEvents,
    pub(super) pod_events: Arc<PodEvents>,
    /// Changes when the API server has gone back in time.
    pub(super) rewinds: watch::Receiver<u64>,
    pub(super) changed: Notify,
    /// Whether pods that should have ended have processes.
    pub(super) has_overdue: watch::Sender<bool>,
}

impl Sweeper {
    /// There may be something to free.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Reads what the node's pods hold, as often as it takes.
    pub(super) async fn load(&self, shutdown: &CancellationToken) {
        let load = || {
            let allocator = Arc::clone(&self.allocator);
            async move { allocator.load().await }
        };
        let load = load.retry(backoff::exponential()).notify(|error, pause| {
            warn!(%error, ?pause, "addresses of the node cannot be listed, trying again");
        });
        if let Some(Ok(addresses)) = shutdown.run_until_cancelled(load).await {
            info!(addresses, "addresses of the node listed");
        }
    }

    /// Compares all pods that hold something with the API server, and then again those that do not seem to run.
    /// Wants [`Sweeper::load`] and synced watches.
    pub(super) async fn run(&self, shutdown: &CancellationToken) {
        let mut owners = self.allocator.owners();
        let mut detached_until = None;
        let mut pauses = backoff::exponential().build();
        let mut rewinds = self.rewinds.clone();
        let mut reassertion: Option<Reassertion> = None;
        while !shutdown.is_cancelled() {
            let mut is_forgotten = false;
            if let Some(left) = reassertion.as_mut().filter(|left| left.is_due(Instant::now())) {
                is_forgotten = !self.reassert(left, shutdown).await;
                owners = self.allocator.owners();
            }
            reassertion = reassertion.filter(|left| !left.is_done());
            let outcome = self.sweep_pods(&owners, shutdown).await;
            let SweepOutcome { failed, has_overdue, waits_until, freed } = outcome;
            let failed = failed || is_forgotten;
            self.events.freed(&freed);
            // A pod that could not be looked at may be the one.
            self.has_overdue.send_if_modified(|known| {
                let now = has_overdue || failed && *known;
                std::mem::replace(known, now) != now
            });
            let pause = if failed {
                pauses.next().unwrap_or(backoff::MAX_PAUSE)
            } else {
                pauses = backoff::exponential().build();
                INTERVAL
            };
            // A list that has failed waits like everything that has.
            let lists_from =
                reassertion.as_ref().and_then(|left| left.lists_from).filter(|from| *from > Instant::now());
            let pause = [waits_until, detached_until, lists_from]
                .into_iter()
                .flatten()
                .min()
                .map_or(pause, |until| {
                    pause.min(until.saturating_duration_since(Instant::now()).max(backoff::MIN_PAUSE))
                });
            let is_moving = !self.allocator.migration_targets().is_empty();
            let pause = if is_moving { pause.min(SHARING_INTERVAL) } else { pause };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                Ok(()) = rewinds.changed() => reassertion = Some(self.begin_reassertion()),
                () = self.changed.notified() => {
                    if shutdown.run_until_cancelled(tokio::time::sleep(SWEEP_DELAY)).await.is_none() {
                        return;
                    }
                }
            }
            self.learn_shared().await;
            owners = self.allocator.owners();
            detached_until = self.retain_ended(&mut owners, Instant::now());
            self.pools.read(|pools| self.allocator.forget_pools(|name| pools.get(name.as_str()).is_some()));
        }
    }

    /// Learns what virtual machines have brought along that have moved here: the leader writes whose it is then.
    async fn learn_shared(&self) {
        for pod in self.allocator.migration_targets() {
            let _lock = self.pod_locks.lock(pod.name.clone()).await;
            let waits = match self.learn_brought_along(&pod).await {
                Ok(waits) => waits,
                Err(error) => {
                    warn!(%pod, %error, "whether the virtual machine has moved is not known, trying again");
                    continue;
                }
            };
            if !waits || self.has_ended(&pod).await {
                self.allocator.stop_sharing(&pod.uid);
            }
        }
    }

    /// Whether a pod is not alive any more. One that the watch does not have may be newer than what the watch has shown.
    async fn has_ended(&self, pod: &PodIdentity) -> bool {
        if let Some(stage) = self.pods.watched().read(|pods| stage(pods, pod)) {
            return stage != PodStage::Alive;
        }
        match self.pods.read(&pod.name).await {
            Ok(found) => !found.is_some_and(|found| found.identity == *pod && found.stage == PodStage::Alive),
            Err(error) => {
                warn!(%pod, %error, "whether the pod has ended is not known, trying again");
                false
            }
        }
    }

    /// Whether there may be more to learn of this pod.
    async fn learn_brought_along(&self, pod: &PodIdentity) -> Result<bool, ApiFailure> {
        let addresses = self.allocator.learn_shared(&pod.uid).await?;
        if addresses > 0 {
            info!(%pod, addresses, "the virtual machine has moved to the pod");
        }
        let due = self.allocator.due_announcements(&pod.uid);
        if !due.is_empty() {
            let sent = due.clone();
            // Also if that was all in vain: neighbors find the pod when they ask for its address next.
            drop(tokio::task::spawn_blocking(move || sent.iter().for_each(Announcement::send)).await);
            self.allocator.announced(&pod.uid, &due);
        }
        self.allocator.detach_unused(&pod.uid).await
    }

    /// Leaves out the pods that run, as the watch has them; of those whose NICs are detached it is asked when an ADD
    /// would have followed. Answers when that is the case next.
    fn retain_ended(&self, owners: &mut Vec<Arc<Owner>>, now: Instant) -> Option<Instant> {
        let mut next = None;
        self.pods.watched().read(|pods| {
            self.allocator.holdings().read(|held| {
                owners.retain(|owner| {
                    let Some(stage) = stage(pods, &owner.pod) else { return true };
                    let since = held.last_detached(&owner.pod.uid);
                    let settled = since.and_then(|since| since.checked_add(REATTACH_TIME));
                    match stage {
                        PodStage::Finished => true,
                        // What has no sandbox is not in use.
                        PodStage::Terminating => settled.is_some(),
                        PodStage::Alive => {
                            let waits = settled.filter(|settled| now < *settled);
                            next = waits.into_iter().chain(next).min();
                            settled.is_some() && waits.is_none()
                        }
                    }
                });
            });
        });
        next
    }

    async fn sweep_pods(&self, owners: &[Arc<Owner>], shutdown: &CancellationToken) -> SweepOutcome {
        let mut outcome = SweepOutcome::default();
        let mut running = None;
        for owner in owners {
            if shutdown.is_cancelled() {
                break;
            }
            match self.sweep_pod(owner, &mut running).await {
                Ok(Swept { until, is_overdue, freed }) => {
                    outcome.freed.extend(freed.into_iter().map(|ip| (ip, owner.pod.name.clone())));
                    outcome.waits_until = until.into_iter().chain(outcome.waits_until).min();
                    outcome.has_overdue |= is_overdue;
                }
                Err(error) => {
                    warn!(pod = %owner.pod, %error, "addresses of the pod could not be checked, trying again");
                    outcome.failed = true;
                }
            }
        }
        outcome
    }

    /// Frees what the pod does not use any more. `running` are the pods that have processes, once they have been read.
    async fn sweep_pod(
        &self,
        owner: &Owner,
        running: &mut Option<BTreeSet<PodUid>>,
    ) -> anyhow::Result<Swept> {
        let pod = &owner.pod;
        let _lock = self.pod_locks.lock(pod.name.clone()).await;
        let found = self.pods.read(&pod.name).await?;
        let held = self.allocator.holdings().read(|index| index.of_pod(&pod.uid));
        let grace = held.iter().filter_map(|object| object.holding.grace).max();
        let at = |sandbox| {
            let may_run_until = self.pods.may_run_until(pod, grace);
            let finishes_at = self.pods.finishes_at(pod);
            evidence(found.as_deref(), sandbox, may_run_until, finishes_at)
        };
        let policy = ReleasePolicy::default();
        let plan = |holding: &Holding, unseen| plan_unless_kept(holding, &at(self.sandbox(holding, unseen)));
        let review = |unseen| {
            let mut plans: Vec<_> = held.iter().map(|object| plan(&object.holding, unseen)).collect();
            // It may hold what a request of unknown outcome has made.
            plans.push(plan_owner_release(owner, &at(unseen), policy));
            plans
        };
        let mut unseen = SandboxState::Unknown;
        let mut plans = review(unseen);
        if plans.iter().any(|plan| is_freed(*plan)) && self.has_processes(&pod.uid, running).await? {
            // Its kubelet may have died.
            unseen = SandboxState::Running { until: Instant::now() + RUNNING_INTERVAL };
            plans = review(unseen);
        }
        let plan = |holding: &Holding| plan(holding, unseen);
        let reason = plans.iter().find_map(|plan| match plan {
            Disposition::Free(reason) => Some(*reason),
            _ => None,
        });
        let mut freed = Vec::new();
        if let Some(reason) = reason {
            info!(%pod, uid = %pod.uid, reason = reason.as_str(), "the pod does not use what it held any more");
            if reason == FreeReason::Unplugged {
                // First: what the endpoint of a pod that is alive names, and whose object is missing, the leader writes again.
                let unplugged = held.iter().map(|object| (*object.holding).clone());
                let unplugged: Vec<_> = unplugged.filter(|holding| is_freed(plan(holding))).collect();
                self.endpoints.forget(owner, &unplugged).await?;
                freed = self.releaser.free(pod, |holding| unplugged.contains(holding)).await?;
            } else {
                freed = self.releaser.end(pod, |holding| is_freed(plan(holding))).await?;
            }
            self.metrics.swept(reason, freed.len());
        }
        let has_left = self.allocator.holdings().read(|index| !index.of_pod(&pod.uid).is_empty());
        if let Some(found) = found.as_ref().filter(|_| has_left)
            && found.identity == *pod
            && found.stage == PodStage::Alive
        {
            self.record_grace(found).await?;
            self.restore_endpoint(found, owner).await?;
        }
        let waits = plans.iter().filter_map(|plan| match plan {
            Disposition::Leave(
                LeaveReason::MayRun { until }
                | LeaveReason::Detached { until }
                | LeaveReason::Running { until }
                | LeaveReason::Terminating { grace_end: Some(until) },
            ) => Some(*until),
            _ => None,
        });
        let until = waits.min();
        debug!(%pod, uid = %pod.uid, ?plans, ?until, "what the pod holds was reviewed");
        let is_overdue =
            plans.iter().any(|plan| matches!(plan, Disposition::Leave(LeaveReason::Running { .. })));
        Ok(Swept { until, is_overdue, freed })
    }

    /// Whether the pod has processes on this node, by a reading for all pods that hold something.
    pub(super) async fn has_processes(
        &self,
        uid: &PodUid,
        running: &mut Option<BTreeSet<PodUid>>,
    ) -> anyhow::Result<bool> {
        if let Some(running) = running {
            return Ok(running.contains(uid));
        }
        let holders = self.allocator.owners().iter().map(|owner| owner.pod.uid.clone()).collect();
        let reading = tokio::task::spawn_blocking(move || running_pods(&holders));
        let found = reading.await?.context("processes of the node cannot be read")?;
        Ok(running.insert(found).contains(uid))
    }

    /// The sandbox that uses an address, by its object; `unseen` if that names one.
    fn sandbox(&self, holding: &Holding, unseen: SandboxState<Instant>) -> SandboxState<Instant> {
        match self.allocator.holdings().read(|index| index.detached_since(holding.ip())) {
            Some(since) => SandboxState::Detached { settled: since.checked_add(REATTACH_TIME) },
            None => unseen,
        }
    }

    /// Completes the objects of a pod that is alive.
    async fn record_grace(&self, found: &Pod) -> anyhow::Result<()> {
        let held = self.allocator.holdings().read(|index| index.of_pod(&found.identity.uid));
        for object in held {
            let Holding { grace, is_detached, state, .. } = &*object.holding;
            if grace.is_none() && !is_detached && *state == AddressState::Bound {
                self.allocator.record_grace(&object, found.grace).await?;
            }
        }
        Ok(())
    }

    /// Has the endpoint of a pod that is alive written if it lacks something.
    async fn restore_endpoint(&self, found: &Pod, owner: &Owner) -> anyhow::Result<()> {
        let endpoint = self.endpoints.get(&owner.endpoint_name()).await?;
        let is_anothers =
            endpoint.as_ref().is_some_and(|found| endpoint::is_held_by_another(found, &owner.pod.uid));
        // The virtual machine is still moving to this pod.
        if owner.virtual_machine.is_some() && is_anothers {
            return Ok(());
        }
        let status = endpoint.and_then(|endpoint| endpoint.status);
        let status = status.filter(|status| status.current.uid == owner.pod.uid.as_str());
        let ips = self.endpoint_ips(found).await?;
        if endpoint::lacks(status.as_ref().map_or(&[], |status| &status.current.ips), &ips) {
            let top = self.workloads.top(found).await?;
            let lifetime = self.releaser.successors.lifetime(&top, owner);
            let workload = Some((&top).into());
            self.endpoints.put(Record::new(found, &Owner { workload, ..owner.clone() }, ips, lifetime));
        }
        Ok(())
    }

    /// What the endpoint should say of all that the pod holds.
    async fn endpoint_ips(&self, pod: &Pod) -> anyhow::Result<Vec<EndpointIp>> {
        let annotations = PodAnnotations::parse(&pod.annotations)?;
        let held = self.allocator.holdings().read(|index| index.of_pod(&pod.identity.uid));
        let mut pools = PoolTable::new();
        for object in &held {
            let pool = &object.holding.pool;
            let entry = self.pool_specs.get(pool).await;
            let entry = entry.map_err(|failure| anyhow!("failed to get IPPool {pool}: {failure}"))?;
            pools.extend(entry.map(|entry| (pool.clone(), entry)));
        }
        let find = |name: &PoolName| pools.get(name)?.spec.clone().ok();
        Ok(endpoint::restore(held, &annotations, find))
    }
}

/// The pod's stage, if the watch knows it.
fn stage(pods: &LocalPodIndex, pod: &PodIdentity) -> Option<PodStage> {
    pods.get(&pod.name).filter(|known| known.identity.uid == pod.uid).map(|known| known.stage)
}
