//! DEL: frees what belongs to a NIC of a pod that is not alive any more. The endpoint goes before the last address:
//! while there is an endpoint there are addresses, which the sweep finds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use spiderpool_api::agent::ipam::{IpamBatchDelArgs, IpamDelArgs};
use spiderpool_core::ipam::alive::Stage;
use tracing::{Instrument, debug, info, info_span, warn};

use super::Ipam;
use super::error::ReleaseError;
use super::held::Held;

/// Which of a pod's addresses are meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope<'a> {
    /// Those that this sandbox uses, on all its NICs.
    Sandbox(&'a str),
    /// Those that this sandbox uses on this NIC: others may still be up.
    Nic {
        /// The sandbox.
        container_id: &'a str,
        /// The NIC.
        interface: &'a str,
    },
    /// All of them.
    Pod,
}

/// A pod by its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodRef<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl std::fmt::Display for PodRef<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Ipam {
    /// Serves DELETE `/ipam/ip`. The work goes on when the caller is gone.
    pub(crate) async fn release(self: &Arc<Self>, args: IpamDelArgs) -> Result<(), ReleaseError> {
        let pod = format!("{}/{}", args.pod_namespace, args.pod_name);
        let span = info_span!("release", pod, nic = args.if_name, container = args.container_id);
        let ipam = Arc::clone(self);
        self.counted(async move { ipam.release_in_turn(&args).await }.instrument(span)).await
    }

    /// Serves DELETE `/ipam/ips`: frees all addresses of a sandbox, also of a pod that is alive.
    pub(crate) async fn release_all(self: &Arc<Self>, args: IpamBatchDelArgs) -> Result<(), ReleaseError> {
        let pod = format!("{}/{}", args.pod_namespace, args.pod_name);
        let span = info_span!("release all", pod, container = args.container_id);
        let ipam = Arc::clone(self);
        self.counted(async move { ipam.release_all_in_turn(&args).await }.instrument(span)).await
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
            self.metrics.release_failed(error);
            warn!(%error, "release failed, the sweep tries again");
            self.wake.notify_one();
        }
        outcome
    }

    async fn release_in_turn(&self, args: &IpamDelArgs) -> Result<(), ReleaseError> {
        let pod = PodRef { namespace: &args.pod_namespace, name: &args.pod_name };
        self.start.wait().await?;
        let waiting = Instant::now();
        let _turn = self.pods.take((args.pod_namespace.clone(), args.pod_name.clone())).await;
        self.metrics.release_wait.observe(waiting.elapsed());
        for uid in self.meant(pod, &args.pod_uid, &args.container_id) {
            if self.is_alive(pod, &uid).await? {
                debug!(uid, "the pod is alive and keeps its addresses");
                continue;
            }
            let scope = Scope::Nic { container_id: &args.container_id, interface: &args.if_name };
            self.free(pod, &uid, scope).await?;
        }
        Ok(())
    }

    async fn release_all_in_turn(&self, args: &IpamBatchDelArgs) -> Result<(), ReleaseError> {
        let pod = PodRef { namespace: &args.pod_namespace, name: &args.pod_name };
        self.start.wait().await?;
        if args.is_release_conflict_ips {
            self.may_release_conflicts(pod).await?;
        }
        let _turn = self.pods.take((args.pod_namespace.clone(), args.pod_name.clone())).await;
        for uid in self.meant(pod, &args.pod_uid, &args.container_id) {
            self.free(pod, &uid, Scope::Sandbox(&args.container_id)).await?;
        }
        Ok(())
    }

    async fn may_release_conflicts(&self, pod: PodRef<'_>) -> Result<(), ReleaseError> {
        let failed = |source| ReleaseError::ReadPod { pod: pod.to_string(), source };
        if !self.settings.release_conflicts {
            return Err(ReleaseError::Stateless);
        }
        let Some(found) = self.read_pod(pod.namespace, pod.name).await.map_err(failed)? else {
            return Ok(());
        };
        let top = self.owners.top(&found).await.map_err(failed)?;
        if self.settings.stateful_set && top.kind == "StatefulSet" {
            return Err(ReleaseError::Stateful);
        }
        Ok(())
    }

    /// The UIDs that the request is about: its own, or those of the sandbox that it names.
    fn meant(&self, pod: PodRef<'_>, uid: &str, container_id: &str) -> BTreeSet<String> {
        if !uid.is_empty() {
            return [uid.to_owned()].into();
        }
        self.stock.held().read(|index| index.owners(pod.namespace, pod.name, container_id))
    }

    /// Whether the pod with this UID is alive; one in its grace period is not, to a DEL. Death is for ever, so the watch is believed if it says so.
    pub(super) async fn is_alive(&self, pod: PodRef<'_>, uid: &str) -> Result<bool, ReleaseError> {
        let known = self.indexes.pods.read(|pods| pods.get(pod.namespace, pod.name));
        if known.is_some_and(|known| known.uid == uid && known.stage != Stage::Alive) {
            return Ok(false);
        }
        let found = self.read_pod(pod.namespace, pod.name).await;
        let found = found.map_err(|source| ReleaseError::ReadPod { pod: pod.to_string(), source })?;
        Ok(found.is_some_and(|found| found.uid == uid && found.stage == Stage::Alive))
    }

    /// Frees addresses of a pod, and its endpoint if nothing is left.
    pub(super) async fn free(
        &self,
        pod: PodRef<'_>,
        uid: &str,
        scope: Scope<'_>,
    ) -> Result<(), ReleaseError> {
        let failed = |held: &Held, source| ReleaseError::Address {
            address: held.net.to_string(),
            pod: pod.to_string(),
            source,
        };
        let settled = self.stock.settle_pod(uid).await;
        settled.map_err(|source| ReleaseError::ReadPod { pod: pod.to_string(), source })?;
        let held = self.stock.held().read(|index| index.of_pod(uid));
        let (mine, others): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| match scope {
            Scope::Pod => true,
            Scope::Sandbox(of) => held.container_id == of,
            Scope::Nic { container_id, interface } => {
                held.container_id == container_id && held.interface == interface
            }
        });
        if mine.is_empty() {
            debug!(uid, others = others.len(), "nothing to free");
            return Ok(());
        }
        if others.is_empty() {
            let removed = self.endpoints.remove(pod.namespace, pod.name, uid).await;
            removed.map_err(|source| ReleaseError::Endpoint { pod: pod.to_string(), source })?;
        }
        let freed =
            join_all(mine.iter().map(|held| async move { (held, self.stock.free(held).await) })).await;
        for (held, outcome) in freed {
            outcome.map_err(|source| failed(held, source))?;
            info!(address = %held.net, pool = held.pool, uid, "freed");
        }
        Ok(())
    }
}
