//! ADD: request, resolve pools, take addresses, respond. What the pod holds is kept, what it lacks is taken, in one
//! write per address.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamAddResponse};
use spiderpool_api::endpoint::Lifetime;
use spiderpool_core::error_list::{MAX_TEXT, cut};
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::{AllocationStep, IpamError, Owner, PodAddresses, PoolCandidates};
use spiderpool_core::names::PodName;
use spiderpool_runtime::kubernetes::ApiFailure;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::allocator::{AddressObject, Claimant, Freed};
use super::error::{AllocateError, PodError};
use super::keyed_mutex::KeyedGuard;
use super::predecessors::Left;
use super::request::AllocationRequest;
use super::{Ipam, auto_pools};
use crate::watches::Pod;

/// An ADD waits so long for the DEL of an earlier pod of the name, and looks again after such pauses.
const DEL_WAIT: Duration = Duration::from_secs(10);
const DEL_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_DEL_PAUSE: Duration = Duration::from_secs(2);

/// How often a pod's addresses may change under a request before it gives up.
const ROUNDS: usize = 3;

/// What a pod has beyond what it is to have, to be freed when it has that.
struct Unwanted {
    /// It holds these.
    surplus: Vec<AddressObject>,
    /// These are kept for it.
    outdated: Vec<AddressObject>,
}

impl Ipam {
    /// Serves POST `/ipam/ip`. Requests to the API server are never broken off half-way: an address could be taken that
    /// nobody knows of. So the work goes on when the caller is gone, but no new request is begun for it. A DEL of the NIC
    /// says that, too: it would otherwise wait for what the ADD waits for.
    pub async fn allocate(self: &Arc<Self>, args: IpamAddArgs) -> Result<IpamAddResponse, AllocateError> {
        let begun = Instant::now();
        self.metrics.allocation_begins();
        let span = info_span!(
            "allocate",
            pod = %args.pod,
            nic = %args.if_name,
            container_id = %args.container_id
        );
        let abandoned = self.adds.begin(&args.container_id, &args.if_name);
        let _cancelled_with_the_caller = abandoned.clone().drop_guard();
        let ipam = Arc::clone(self);
        let name = args.pod.clone();
        let work = async move {
            let outcome = ipam.allocate_locked(args, abandoned.clone()).await;
            outcome.map_err(
                |error| if abandoned.is_cancelled() { AllocateError::Abandoned(name) } else { error },
            )
        };
        let outcome = tokio::spawn(work.instrument(span.clone())).await.unwrap_or(Err(AllocateError::Broken));
        let elapsed = begun.elapsed();
        self.metrics.allocation_time.observe(elapsed);
        span.in_scope(|| match &outcome {
            Ok(answer) => info!(ips = ?answer.ips.iter().map(|ip| &ip.address).collect::<Vec<_>>(), ?elapsed, "allocated"),
            Err(error) => {
                let reason = error.reason();
                self.metrics.allocation_failed(reason);
                let error = cut(error.to_string(), MAX_TEXT);
                warn!(error, reason = reason.as_str(), ?elapsed, "allocation failed");
            }
        });
        outcome
    }

    async fn allocate_locked(
        &self,
        args: IpamAddArgs,
        abandoned: CancellationToken,
    ) -> Result<IpamAddResponse, AllocateError> {
        self.start.wait().await?;
        let (name, begun) = (args.pod.clone(), Instant::now());
        let (mut waiting, mut pause) = (Some(begun), DEL_PAUSE);
        loop {
            let Some(lock) = abandoned.run_until_cancelled(self.pod_locks.lock(name.clone())).await else {
                return Err(AllocateError::Abandoned(name));
            };
            if let Some(since) = waiting.take() {
                self.metrics.allocation_wait.observe(since.elapsed());
            }
            match self.allocate_once(args.clone(), abandoned.clone(), lock).await {
                Err(AllocateError::StillHeld(held)) if begun.elapsed() < DEL_WAIT => {
                    debug!(address = %held.address, uid = %held.owner.pod.uid, "an earlier pod of the name holds the address, waiting");
                    // Not locked: the DEL may be one of this node.
                    let _gone = abandoned.run_until_cancelled(tokio::time::sleep(pause)).await;
                    pause = (pause * 2).min(LONGEST_DEL_PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    async fn allocate_once(
        &self,
        args: IpamAddArgs,
        abandoned: CancellationToken,
        lock: KeyedGuard<PodName>,
    ) -> Result<IpamAddResponse, AllocateError> {
        let pod = self.live_pod(&args).await?;
        let nic = args.if_name.clone();
        let outcome = self.allocate_for(Arc::clone(&pod), args, abandoned.clone(), lock).await;
        match &outcome {
            Err(AllocateError::StillHeld(_)) => return outcome,
            Err(error) if error.is_said() && !abandoned.is_cancelled() => {
                self.pod_events.allocation_failed(&pod, &nic, error);
            }
            _ => {}
        }
        self.pod_events.name_unknown_annotations(&pod);
        outcome
    }

    /// For a pod that may have addresses here, while it is locked.
    async fn allocate_for(
        &self,
        pod: Arc<Pod>,
        args: IpamAddArgs,
        abandoned: CancellationToken,
        lock: KeyedGuard<PodName>,
    ) -> Result<IpamAddResponse, AllocateError> {
        let (name, conflicts) = (args.pod.clone(), args.conflicts.clone());
        let top = self.workloads.top(&pod).await;
        let top = top.map_err(|source| AllocateError::Owner { pod: name.clone(), source })?;
        let owner = self.owner(&pod, &top).await;
        let failed = |source| AllocateError::Machine { pod: name.clone(), machine: top.name.clone(), source };
        let owner = owner.map_err(failed)?;
        let lifetime = self.releaser.successors.lifetime(&top, &owner);
        let request = AllocationRequest::new(args, pod, top, (owner, lifetime), abandoned);
        let request = request.map_err(|error| AllocateError::Ipam(vec![error]))?;
        self.exchange(&request, &conflicts).await?;
        let begun = tokio::time::Instant::now();
        let mut more_rounds = 1..ROUNDS;
        loop {
            match self.serve(&request).await {
                Ok(Some((answer, unwanted))) => {
                    self.free_unwanted(unwanted, request.claimant, lock);
                    return Ok(answer);
                }
                Ok(None) if more_rounds.next().is_some() => {}
                Ok(None) => return Err(AllocateError::Contended(name)),
                Err(AllocateError::Ipam(errors)) => {
                    if auto_pools::await_addresses(&request, begun, &errors).await?.is_none() {
                        return Err(AllocateError::Ipam(self.resolver.explain(errors).await));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whose addresses the pod has: what it holds already says so.
    async fn owner(&self, pod: &Pod, top: &OwnerRef) -> Result<Owner, ApiFailure> {
        let held = self.allocator.holdings().read(|index| index.of_pod(&pod.identity.uid));
        let virtual_machine = match held.first() {
            Some(object) => object.holding.owner.virtual_machine.clone(),
            None => self.releaser.successors.machine(pod, top).await?,
        };
        Ok(Owner { pod: pod.identity.clone(), workload: Some(top.into()), virtual_machine })
    }

    /// The pod, if it may have addresses here.
    async fn live_pod(&self, args: &IpamAddArgs) -> Result<Arc<Pod>, AllocateError> {
        let name = || args.pod.clone();
        let known = self.pods.known(&args.pod);
        let pod = if let Some(pod) = known.filter(|pod| Some(&pod.identity.uid) == args.pod_uid.as_ref()) {
            pod
        } else {
            // The watch is behind, or the runtime does not say which pod it means.
            let read = self.pods.read(&args.pod).await.and_then(|pod| pod.ok_or(PodError::Missing));
            read.map_err(|source| AllocateError::Pod { pod: name(), source })?
        };
        if let Some(wanted) = args.pod_uid.as_ref().filter(|wanted| **wanted != pod.identity.uid) {
            let (wanted, found) = (wanted.clone(), pod.identity.uid.clone());
            return Err(AllocateError::Replaced { pod: name(), wanted, found });
        }
        if pod.stage != PodStage::Alive {
            return Err(AllocateError::Ipam(vec![IpamError::DeadPod(name())]));
        }
        if pod.node.as_ref() != Some(&self.node) {
            let (found, node) = (pod.node.clone(), self.node.clone());
            return Err(AllocateError::OtherNode { pod: name(), found, node });
        }
        Ok(pod)
    }

    /// One round: the answer and what the pod holds beyond it; `None` if what it holds changed meanwhile.
    async fn serve(
        &self,
        request: &AllocationRequest,
    ) -> Result<Option<(IpamAddResponse, Unwanted)>, AllocateError> {
        let Left { kept, shared, guest } = match request.lifetime {
            Lifetime::Name => self.predecessors.left_for(request).await?,
            Lifetime::Pod => Left::default(),
        };
        // Looking for what is kept may have found more of what the pod holds.
        let held = || self.allocator.holdings().read(|index| index.of_pod(&request.pod.identity.uid));
        // A pod that was there before this agent, or has run, may have addresses that the leader has written since. What an agent has
        // given names its sandbox.
        let is_older = request.pod.created.is_some_and(|created| created < self.started);
        let is_known = |held: &[AddressObject]| {
            !held.is_empty() && held.iter().all(|object| object.holding.container_id.is_some())
        };
        if (request.pod.has_started || is_older) && !is_known(&held()) {
            let (pod, endpoint) = (&request.pod.identity, request.claimant.owner.endpoint_name());
            let learnt = self.predecessors.learn_own(pod, &endpoint).await;
            learnt.map_err(|source| AllocateError::Predecessor { pod: pod.name.clone(), source })?;
        }
        let held = held();
        let plan = self.resolver.resolve(request, &PodAddresses { held, kept, shared }).await?;
        let Some(served) = self.take(request, plan.steps).await? else { return Ok(None) };
        for (candidate, object) in served.iter().filter(|(candidate, _)| candidate.nic == request.nic) {
            let given = request.requested.check_given(candidate, object.holding.ip());
            given.map_err(|error| AllocateError::Ipam(vec![error]))?;
        }
        let (shared, own): (Vec<_>, Vec<_>) = served.iter().partition(|(_, object)| request.shares(object));
        if let Some(of_machine) = &guest {
            self.allocator.share(shared.iter().map(|(_, object)| object), of_machine, &request.claimant)?;
        }
        let adopted = join_all(own.iter().map(|(_, object)| self.allocator.adopt(object, &request.claimant)));
        for (adopted, (_, object)) in adopted.await.into_iter().zip(&own) {
            let adopted = adopted.map_err(|source| AllocateError::Adopt {
                address: object.holding.address,
                container: request.claimant.container_id.clone(),
                source,
            });
            if adopted?.is_none() {
                return Ok(None);
            }
        }
        let answer = self.responder.respond(request, &served, guest.is_some()).await?;
        Ok(Some((answer, Unwanted { surplus: plan.surplus, outdated: plan.outdated })))
    }

    /// Takes what the pod lacks, all at once. Everything is awaited: what was taken stays with the pod, also when
    /// another address failed. `None` if what was kept for it is so no more.
    async fn take(
        &self,
        request: &AllocationRequest,
        steps: Vec<AllocationStep<AddressObject>>,
    ) -> Result<Option<Vec<(PoolCandidates, AddressObject)>>, AllocateError> {
        let taken = join_all(steps.into_iter().map(|step| async move {
            match step {
                AllocationStep::Keep { candidate, held: object }
                | AllocationStep::Share { candidate, shared: object } => Ok(Some((candidate, object))),
                AllocationStep::TakeOver { candidate, kept } => {
                    let taken = self.allocator.take_over(&kept, &request.claimant, &candidate.nic).await;
                    let taken = taken.map_err(|source| AllocateError::Adopt {
                        address: kept.holding.address,
                        container: request.claimant.container_id.clone(),
                        source,
                    });
                    Ok(taken?.map(|object| (candidate, object)))
                }
                AllocationStep::Allocate { candidate, pools } => {
                    let taken = self.allocator.take(&request.claimant, &candidate, &pools).await;
                    let explain = |error| match &candidate.nic {
                        nic if *nic == request.nic => request.requested.explain(error),
                        _ => error,
                    };
                    let taken = taken.map_err(explain).map(|object| Some((candidate, object)));
                    taken.map_err(|error| AllocateError::Ipam(vec![error]))
                }
            }
        }));
        let (mut served, mut errors) = (Some(Vec::new()), Vec::new());
        for outcome in taken.await {
            match outcome {
                Ok(one) => served = served.zip(one).map(|(served, one)| [served, vec![one]].concat()),
                Err(AllocateError::Ipam(more)) => errors.extend(more),
                Err(other) => return Err(other),
            }
        }
        if errors.is_empty() { Ok(served) } else { Err(AllocateError::Ipam(errors)) }
    }

    /// Gives back what nothing wants, now that an attempt has succeeded, while the pod is locked. The plugin has its answer.
    fn free_unwanted(&self, unwanted: Unwanted, claimant: Claimant, lock: KeyedGuard<PodName>) {
        let Unwanted { mut surplus, outdated } = unwanted;
        if surplus.is_empty() && outdated.is_empty() {
            return;
        }
        let allocator = Arc::clone(&self.allocator);
        let work = async move {
            let _lock = lock;
            for kept in &outdated {
                // Only what a node holds may its agent free. What cannot be taken over now, the leader frees.
                match allocator.take_over(kept, &claimant, &kept.holding.nic).await {
                    Ok(taken) => surplus.extend(taken),
                    Err(error) => {
                        warn!(address = %kept.holding.address, %error, "address that was kept for the pod is not freed yet");
                    }
                }
            }
            for object in surplus {
                let (address, pool) = (object.holding.address, &object.holding.pool);
                match allocator.free(&object).await {
                    Ok(Freed::Yes) => info!(%address, %pool, "surplus address of the pod freed"),
                    Ok(Freed::Adopted) => debug!(%address, %pool, "a newer sandbox has the address"),
                    Ok(Freed::Unreadable) => {
                        warn!(%address, %pool, "surplus address of the pod not freed: its SpiderIPAddress cannot be parsed any more");
                    }
                    Err(error) => warn!(%address, %error, "surplus address of the pod is not freed yet"),
                }
            }
        };
        tokio::spawn(work.in_current_span());
    }
}
