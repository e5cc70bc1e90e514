//! Frees what belongs to pods that are gone although no DEL came for it, or one that failed. It never takes an
//! address from a pod in its grace period: the runtime's DEL says when that pod's network is down.

use std::collections::BTreeSet;
use std::time::Duration;

use spiderpool_core::ipam::alive::{Fate, Stage, fate};
use spiderpool_runtime::shutdown::Shutdown;
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

impl Ipam {
    /// A pod of the node has changed or gone.
    pub fn pods_changed(&self) {
        self.wake.notify_one();
    }

    /// Compares all pods that hold something with the API server, and then again those that do not seem to run.
    /// Wants [`Ipam::load`] and synced watches.
    pub async fn sweep(&self, shutdown: &Shutdown) {
        let mut holders = self.stock.holders();
        let mut retry = RETRY;
        while !shutdown.is_requested() {
            let pause = if self.compare(&holders, shutdown).await {
                retry = RETRY;
                INTERVAL
            } else {
                let pause = retry;
                retry = (retry * 2).min(LONGEST_RETRY);
                pause
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {
                    if !shutdown.sleep(PATIENCE).await {
                        return;
                    }
                }
            }
            holders = self.stock.holders();
            self.indexes.pods.read(|pods| holders.retain(|holder| !is_running(pods, holder)));
            self.indexes.pools.read(|pools| self.stock.forget_pools(|name| pools.contains(name)));
        }
    }

    /// Whether all could be compared.
    async fn compare(&self, holders: &BTreeSet<Holder>, shutdown: &Shutdown) -> bool {
        let mut done = true;
        for holder in holders {
            if shutdown.is_requested() {
                return done;
            }
            if let Err(error) = self.compare_pod(holder).await {
                let (namespace, name) = (&holder.namespace, &holder.name);
                warn!(namespace, name, %error, "what the pod holds is not compared yet, trying again");
                done = false;
            }
        }
        done
    }

    async fn compare_pod(&self, holder: &Holder) -> anyhow::Result<()> {
        let _turn = self.pods.take((holder.namespace.clone(), holder.name.clone())).await;
        let found = self.read_pod(&holder.namespace, &holder.name).await?;
        let (pod, uid) = (PodRef { namespace: &holder.namespace, name: &holder.name }, &holder.uid);
        let standing = found.as_deref().map(Pod::standing);
        match (fate(uid, holder.is_static, standing), found) {
            (Fate::Freed, _) => {
                info!(%pod, uid, "the pod is gone, what it held is freed");
                Ok(self.free(pod, uid, Scope::Pod).await?)
            }
            (Fate::Kept, Some(found)) => self.restore_endpoint(&found).await,
            (Fate::Kept | Fate::Left, _) => {
                debug!(%pod, uid, "the pod may still use what it holds");
                Ok(())
            }
        }
    }
}

/// Whether the watch knows the pod and does not call it finished.
fn is_running(pods: &PodIndex, holder: &Holder) -> bool {
    let known = pods.get(&holder.namespace, &holder.name);
    known.is_some_and(|pod| pod.uid == holder.uid && pod.stage != Stage::Finished)
}
