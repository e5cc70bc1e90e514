//! What pods of this node hold is said again when the API server has gone back in time: etcd was restored from a snapshot that
//! is older than an address. The leader writes again what endpoints name; those may be as old.

use std::collections::BTreeSet;
use std::time::Instant;

use spiderpool_core::ipam::Owner;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::names::PodUid;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::allocator::Reasserted;
use super::reassertion::Reassertion;
use super::sweep::Sweeper;

impl Sweeper {
    /// The API server has gone back in time just now.
    pub(super) fn begin_reassertion(&self) -> Reassertion {
        warn!("the API server has gone back in time, what the node's pods hold is written again");
        Reassertion::new(self.allocator.owners(), self.allocator.node(), Instant::now())
    }

    /// Has the API server say again what the node's pods hold, and learns what it says besides. What fails is left for the next
    /// call; whether nothing has.
    pub(super) async fn reassert(&self, left: &mut Reassertion, shutdown: &CancellationToken) -> bool {
        let mut running = None;
        let mut failed = Vec::new();
        for owner in std::mem::take(&mut left.pods) {
            if shutdown.is_cancelled() {
                return false;
            }
            if let Err(error) = self.reassert_pod(&owner, &mut running).await {
                warn!(pod = %owner.pod, %error, "addresses of the pod could not be written again, trying again");
                failed.push(owner);
            }
        }
        left.pods = failed;
        if left.lists_from.is_some_and(|from| from <= Instant::now()) {
            if let Err(error) = self.learn_returned().await {
                warn!(%error, "addresses of the node cannot be listed, trying again");
                return false;
            }
            left.lists_from = None;
        }
        left.pods.is_empty()
    }

    /// Only of a pod that may use its addresses: the sweep frees what others hold.
    async fn reassert_pod(
        &self,
        owner: &Owner,
        running: &mut Option<BTreeSet<PodUid>>,
    ) -> anyhow::Result<()> {
        let pod = &owner.pod;
        let _lock = self.pod_locks.lock(pod.name.clone()).await;
        let found = self.pods.read(&pod.name).await?.filter(|found| found.identity == *pod);
        let exists = found.as_ref().is_some_and(|found| found.stage != PodStage::Finished);
        // The API server may have forgotten the pod, too: its kubelet ends it soon.
        if !exists && !self.has_processes(&pod.uid, running).await? {
            return Ok(());
        }
        for known in self.allocator.holdings().read(|index| index.of_pod(&pod.uid)) {
            let address = known.holding.address;
            match self.allocator.reassert(&known).await? {
                Reasserted::Known => {}
                Reasserted::Again => {
                    warn!(%address, pool = %known.holding.pool, %pod, "the API server had forgotten that the pod has the address, written again");
                }
                Reasserted::Theirs(other) => {
                    let other = other.map(|other| other.owner.pod.name.clone());
                    let holder = other.as_ref().map(ToString::to_string);
                    error!(%address, %pod, holder, "the address of a running pod was given to another one");
                    if let Some((found, other)) = found.as_ref().zip(other) {
                        self.pod_events.address_lost(found, address, &other);
                    }
                }
            }
        }
        Ok(())
    }

    /// Learns of addresses that had been freed, and are this node's again. The sweep frees those of pods that are gone.
    async fn learn_returned(&self) -> anyhow::Result<()> {
        for listed in self.allocator.unknown().await? {
            let _lock = self.pod_locks.lock(listed.holding.owner.pod.name.clone()).await;
            // It may have been freed since.
            if let Some(found) = self.allocator.find(listed.holding.ip()).await? {
                info!(address = %found.holding.address, pod = %found.holding.owner.pod, "an address is this node's again");
                self.allocator.learn(found);
            }
        }
        Ok(())
    }
}
