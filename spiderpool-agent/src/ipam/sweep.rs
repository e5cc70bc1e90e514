//! Frees what belongs to pods that are gone although no DEL came for it, or one that failed. It never takes an
//! address from a pod in its grace period: the runtime's DEL says when that pod's network is down.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use spiderpool_core::ipam::alive::{Fate, Stage, fate};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Ipam;
use super::held::Holder;
use super::release::{PodRef, Scope};
use crate::watches::{Pod, PodIndex};

/// A pod that has just gone is left to the runtime's DEL for this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the watch does not call running is looked at this often.
const INTERVAL: Duration = Duration::from_mins(3);
/// Pause after a comparison that failed, doubled each time up to the limit.
const RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// What a comparison of several pods left to be done.
#[derive(Debug, Default)]
struct Comparison {
    failed: bool,
    /// When the first pod must have ended that may run although the API server does not have it any more.
    waits_until: Option<Instant>,
}

impl Ipam {
    /// A pod of the node has changed or gone.
    pub fn pods_changed(&self) {
        self.wake.notify_one();
    }

    /// Compares all pods that hold something with the API server, and then again those that do not seem to run.
    /// Wants [`Ipam::load`] and synced watches.
    pub async fn sweep(&self, shutdown: &CancellationToken) {
        let mut holders = self.stock.holders();
        let mut retry = RETRY;
        while !shutdown.is_cancelled() {
            let Comparison { failed, waits_until } = self.compare(&holders, shutdown).await;
            let pause = if failed {
                let pause = retry;
                retry = (retry * 2).min(LONGEST_RETRY);
                pause
            } else {
                retry = RETRY;
                INTERVAL
            };
            let pause = waits_until
                .map_or(pause, |until| pause.min(until.saturating_duration_since(Instant::now()).max(RETRY)));
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {
                    if shutdown.run_until_cancelled(tokio::time::sleep(PATIENCE)).await.is_none() {
                        return;
                    }
                }
            }
            holders = self.stock.holders();
            self.indexes.pods.read(|pods| holders.retain(|holder| !is_running(pods, holder)));
            self.indexes.pools.read(|pools| self.stock.forget_pools(|name| pools.get(name).is_some()));
        }
    }

    async fn compare(&self, holders: &BTreeSet<Holder>, shutdown: &CancellationToken) -> Comparison {
        let mut comparison = Comparison::default();
        for holder in holders {
            if shutdown.is_cancelled() {
                break;
            }
            match self.compare_pod(holder).await {
                Ok(None) => {}
                Ok(Some(until)) => {
                    let earliest = comparison.waits_until.map_or(until, |known| known.min(until));
                    comparison.waits_until = Some(earliest);
                }
                Err(error) => {
                    let (namespace, name) = (&holder.namespace, &holder.name);
                    warn!(namespace, name, %error, "what the pod holds is not compared yet, trying again");
                    comparison.failed = true;
                }
            }
        }
        comparison
    }

    /// When the pod is to be compared again, if nothing changes before.
    async fn compare_pod(&self, holder: &Holder) -> anyhow::Result<Option<Instant>> {
        let _turn = self.pods.take((holder.namespace.clone(), holder.name.clone())).await;
        let found = self.read_pod(&holder.namespace, &holder.name).await?;
        let (pod, uid) = (PodRef { namespace: &holder.namespace, name: &holder.name }, &holder.uid);
        let standing = found.as_deref().map(Pod::standing);
        match (fate(uid, holder.is_static, standing), found) {
            (Fate::Freed, _) => {
                let runs_until = |pods: &PodIndex| pods.may_run_until(&holder.namespace, &holder.name, uid);
                if let Some(until) = self.indexes.pods.read(runs_until) {
                    debug!(%pod, uid, "the pod was deleted while it ran, its kubelet may not have stopped it yet");
                    return Ok(Some(until));
                }
                info!(%pod, uid, "the pod is gone, what it held is freed");
                self.free(pod, uid, Scope::Pod).await?;
            }
            (Fate::Kept, Some(found)) => self.restore_endpoint(&found).await?,
            (Fate::Kept | Fate::Left, _) => debug!(%pod, uid, "the pod may still use what it holds"),
        }
        Ok(None)
    }
}

/// Whether the watch knows the pod and does not call it finished.
fn is_running(pods: &PodIndex, holder: &Holder) -> bool {
    let known = pods.get(&holder.namespace, &holder.name);
    known.is_some_and(|pod| pod.uid == holder.uid && pod.stage != Stage::Finished)
}
