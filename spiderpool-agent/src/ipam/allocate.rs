//! ADD: what the pod holds is kept, what it lacks is taken, in one write per address.

use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamAddResponse};
use spiderpool_api::crd::{AddressState, SpiderIPAddressSpec};
use spiderpool_api::endpoint::{Record, endpoint_ips};
use spiderpool_core::ipam::alive::Stage;
use spiderpool_core::ipam::owner::OwnerRef;
use spiderpool_core::ipam::{
    Allocated, Held as Known, IpamError, PodAnnotations, PoolTable, build_response, plan_allocation,
};
use spiderpool_core::names::{IfName, PoolName};
use tracing::{Instrument, info, info_span, warn};

use super::caller::Caller;
use super::error::AllocateError;
use super::held::Held;
use super::stock::Taker;
use super::turns::Turn;
use super::wanted::Wanted;
use super::{Ipam, record};
use crate::watches::Pod;

/// How often a pod's addresses may change under a request before it gives up.
const ROUNDS: usize = 3;

impl Ipam {
    /// Serves POST `/ipam/ip`. The work goes on when the caller is gone.
    pub async fn allocate(self: &Arc<Self>, args: IpamAddArgs) -> Result<IpamAddResponse, AllocateError> {
        let begun = Instant::now();
        self.metrics.allocation_begins();
        let span = info_span!(
            "allocate",
            pod = format!("{}/{}", args.pod_namespace, args.pod_name),
            nic = args.if_name,
            container = args.container_id
        );
        let (presence, caller) = Caller::new();
        let ipam = Arc::clone(self);
        let work = async move { ipam.allocate_in_turn(&args, caller).await };
        let outcome = tokio::spawn(work.instrument(span.clone())).await.unwrap_or(Err(AllocateError::Broken));
        drop(presence);
        self.metrics.allocation_time.observe(begun.elapsed());
        let elapsed = begun.elapsed();
        span.in_scope(|| match &outcome {
            Ok(answer) => info!(ips = ?answer.ips.iter().map(|ip| &ip.address).collect::<Vec<_>>(), ?elapsed, "allocated"),
            Err(error) => {
                self.metrics.allocation_failed(error);
                warn!(%error, ?elapsed, "allocation failed");
            }
        });
        outcome
    }

    async fn allocate_in_turn(
        self: &Arc<Self>,
        args: &IpamAddArgs,
        caller: Caller,
    ) -> Result<IpamAddResponse, AllocateError> {
        self.start.wait().await?;
        let key = (args.pod_namespace.clone(), args.pod_name.clone());
        let name = || format!("{}/{}", args.pod_namespace, args.pod_name);
        let waiting = Instant::now();
        let Some(turn) = caller.unless_gone(self.pods.take(key)).await else {
            return Err(AllocateError::Abandoned(name()));
        };
        self.metrics.allocation_wait.observe(waiting.elapsed());
        let pod = self.live_pod(args).await?;
        let top = self.owners.top(&pod).await;
        let top = top.map_err(|source| AllocateError::Owner { pod: name(), source })?;
        let taker = self.taker(args, &pod, &top, caller);
        for _ in 0..ROUNDS {
            if let Some((answer, surplus)) = self.serve(args, &pod, &top, &taker).await? {
                self.free_surplus(surplus, turn);
                return Ok(answer);
            }
        }
        Err(AllocateError::Restless(name()))
    }

    /// The pod, if it may have addresses here.
    async fn live_pod(&self, args: &IpamAddArgs) -> Result<Arc<Pod>, AllocateError> {
        let name = format!("{}/{}", args.pod_namespace, args.pod_name);
        let known = self.indexes.pods.read(|pods| pods.get(&args.pod_namespace, &args.pod_name));
        let pod = match known.filter(|pod| pod.uid == args.pod_uid) {
            Some(pod) => pod,
            // The watch is behind, or the runtime does not say which pod it means.
            None => match self.read_pod(&args.pod_namespace, &args.pod_name).await {
                Ok(Some(pod)) => pod,
                Ok(None) => return Err(AllocateError::NoPod(name)),
                Err(source) => return Err(AllocateError::ReadPod { pod: name, source }),
            },
        };
        if !args.pod_uid.is_empty() && pod.uid != args.pod_uid {
            let (wanted, found) = (args.pod_uid.clone(), pod.uid.clone());
            return Err(AllocateError::Replaced { pod: name, wanted, found });
        }
        if pod.stage != Stage::Alive {
            let (namespace, name) = (args.pod_namespace.clone(), args.pod_name.clone());
            return Err(AllocateError::Dead(IpamError::DeadPod { namespace, name }));
        }
        if pod.node != self.settings.node.as_str() {
            let node = self.settings.node.to_string();
            return Err(AllocateError::OtherNode { pod: name, found: pod.node.clone(), node });
        }
        Ok(pod)
    }

    fn taker(&self, args: &IpamAddArgs, pod: &Pod, top: &OwnerRef, caller: Caller) -> Taker {
        let spec = SpiderIPAddressSpec {
            node: Some(self.settings.node.to_string()),
            container_id: args.container_id.clone(),
            pod_namespace: pod.namespace.clone(),
            pod_name: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            owner_kind: top.kind.clone(),
            owner_name: top.name.clone(),
            state: AddressState::Bound,
            ..SpiderIPAddressSpec::default()
        };
        Taker { spec, network: network_of(args), caller }
    }

    /// One round: the answer and what the pod holds beyond it; `None` if what it holds changed meanwhile.
    async fn serve(
        self: &Arc<Self>,
        args: &IpamAddArgs,
        pod: &Pod,
        top: &OwnerRef,
        taker: &Taker,
    ) -> Result<Option<(IpamAddResponse, Vec<Arc<Held>>)>, AllocateError> {
        let standard = |error| AllocateError::Standard(vec![error]);
        let annotations = PodAnnotations::parse(&pod.annotations).map_err(standard)?;
        let candidates = self.candidates(args, pod, &annotations).await?;
        let held = self.stock.held().read(|index| index.of_pod(&pod.uid));
        let plan = plan_allocation(&candidates, &known(&held), &args.if_name);
        let wanted = self.wanted(plan.steps, pod).await?;
        let taken = join_all(wanted.iter().map(|wanted| async move {
            match &wanted.held {
                Some(_) => Ok(None),
                None => self.stock.take(taker, &wanted.candidate, &wanted.pools).await.map(Some),
            }
        }))
        .await;
        // All are awaited: what was taken stays with the pod, also when another one failed.
        let (taken, failed): (Vec<_>, Vec<_>) = taken.into_iter().partition(Result::is_ok);
        let errors: Vec<IpamError> = failed.into_iter().filter_map(Result::err).collect();
        if !errors.is_empty() {
            return Err(AllocateError::Standard(errors));
        }
        let mut all: Vec<Arc<Held>> = Vec::with_capacity(wanted.len());
        for (wanted, taken) in wanted.iter().zip(taken) {
            let kept =
                wanted.held.as_ref().and_then(|kept| held.iter().find(|held| held.ip() == kept.address));
            all.extend(taken.ok().flatten().or_else(|| kept.cloned()));
        }
        if !self.adopt(args, &all).await? {
            return Ok(None);
        }
        let allocated = self.allocated(&wanted, &all).await?;
        let response = build_response(allocated, &annotations.routes);
        for route in &response.unplaced {
            warn!(%route, "route of the pod's annotation has its next hop in no subnet of the pod and is left out");
        }
        self.endpoints.put(Record::new(pod, (&top.kind, &top.name), endpoint_ips(&response)));
        let is_surplus = |held: &&Arc<Held>| plan.surplus.iter().any(|surplus| surplus.address == held.ip());
        let surplus = held.iter().filter(is_surplus).cloned().collect();
        let answer = IpamAddResponse {
            enable_duplicate_address_detection: Some(self.settings.duplicate_address_detection),
            ..record::answer(&response)
        };
        Ok(Some((answer, surplus)))
    }

    /// Writes this sandbox into addresses that an earlier one had; `false` if one of them is not the pod's any more.
    async fn adopt(&self, args: &IpamAddArgs, all: &[Arc<Held>]) -> Result<bool, AllocateError> {
        let outcomes = join_all(all.iter().map(|held| async move {
            let network = args.network.as_deref().filter(|_| held.interface == args.if_name);
            let network = network.unwrap_or(&held.network);
            if held.container_id == args.container_id && held.network == network {
                return Ok(true);
            }
            let adopted = self.stock.adopt(held, &args.container_id, network).await;
            adopted.map(|held| held.is_some()).map_err(|source| AllocateError::Adopt {
                address: held.net.to_string(),
                container: args.container_id.clone(),
                source,
            })
        }));
        let outcomes: Result<Vec<bool>, _> = outcomes.await.into_iter().collect();
        Ok(outcomes?.into_iter().all(|done| done))
    }

    /// What the pod has, with what its pools say now.
    async fn allocated(&self, wanted: &[Wanted], all: &[Arc<Held>]) -> Result<Vec<Allocated>, AllocateError> {
        let mut allocated = Vec::with_capacity(all.len());
        for (wanted, held) in wanted.iter().zip(all) {
            let name: Result<PoolName, _> = held.pool.parse();
            let table = match &name {
                Ok(name) => self.pool_table(std::slice::from_ref(name)).await?,
                Err(_) => PoolTable::new(),
            };
            // A pool in use cannot be deleted; if somebody forced it, the address is still the pod's.
            let pool = table.into_values().next().and_then(|entry| entry.spec.ok());
            allocated.push(Allocated {
                nic: wanted.candidate.nic.clone(),
                address: held.net,
                pool: name.map_err(|error| AllocateError::Request(error.to_string()))?,
                gateway: pool.as_ref().and_then(|pool| pool.gateway),
                routes: pool.map(|pool| pool.routes.clone()).unwrap_or_default(),
                default_route: wanted.candidate.default_route,
            });
        }
        Ok(allocated)
    }

    /// Gives back what attempts that broke off have left, now that one has succeeded, while it is the pod's turn.
    fn free_surplus(self: &Arc<Self>, surplus: Vec<Arc<Held>>, turn: Turn<(String, String)>) {
        if surplus.is_empty() {
            return;
        }
        let ipam = Arc::clone(self);
        let work = async move {
            let _turn = turn;
            for held in surplus {
                match ipam.stock.free(&held).await {
                    Ok(()) => {
                        info!(address = %held.net, pool = held.pool, "surplus address of the pod freed");
                    }
                    Err(error) => {
                        warn!(address = %held.net, %error, "surplus address of the pod is not freed yet");
                    }
                }
            }
        };
        tokio::spawn(work.in_current_span());
    }
}

/// The network of the NIC that is being added.
fn network_of(args: &IpamAddArgs) -> Option<(IfName, String)> {
    Some((args.if_name.parse().ok()?, args.network.clone()?))
}

/// As plans see it. An address whose object names no NIC or pool cannot be kept for one.
fn known(held: &[Arc<Held>]) -> Vec<Known> {
    let known = held.iter().filter_map(|held| {
        Some(Known { nic: held.interface.parse().ok()?, address: held.ip(), pool: held.pool.parse().ok()? })
    });
    known.collect()
}
