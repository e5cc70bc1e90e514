//! DEL: the requests that free addresses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use spiderpool_api::agent::ipam::{IpamBatchDelArgs, IpamDelArgs};
use spiderpool_core::ipam::Holding;
use spiderpool_core::names::{ContainerId, PodIdentity, PodName, PodUid};
use tracing::{Instrument, info_span, warn};

use super::Ipam;
use super::error::ReleaseError;

impl Ipam {
    /// Serves DELETE `/ipam/ip`. The work goes on when the caller is gone.
    pub(crate) async fn release(self: &Arc<Self>, args: IpamDelArgs) -> Result<(), ReleaseError> {
        let span =
            info_span!("release", pod = %args.pod, nic = %args.if_name, container_id = %args.container_id);
        self.adds.abandon(&args.container_id, Some(&args.if_name));
        let ipam = Arc::clone(self);
        self.counted(async move { ipam.release_locked(&args).await }.instrument(span)).await
    }

    /// Serves DELETE `/ipam/ips`: frees all addresses of a sandbox, also of a pod that is alive.
    pub(crate) async fn release_all(self: &Arc<Self>, args: IpamBatchDelArgs) -> Result<(), ReleaseError> {
        let span = info_span!("release all", pod = %args.pod, container_id = %args.container_id);
        self.adds.abandon(&args.container_id, None);
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
            if self.allocator.holdings().read(|index| index.has_detached(&pod.uid)) {
                self.sweeper.wake();
            }
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
        if self.releaser.successors.keeps_for(&top) {
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
