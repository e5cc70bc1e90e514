//! GC: frees what attachments of a network hold that their container runtime does not know any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use spiderpool_core::gc::{ValidAttachments, is_stale_address, plan_address_gc};
use spiderpool_core::ipam::Holding;
use spiderpool_core::ipam::release::SandboxState;
use spiderpool_core::names::PodIdentity;
use tracing::{Instrument, info_span, warn};

use super::Ipam;
use super::error::ReleaseError;
use super::release::{evidence, is_freed, plan_unless_kept};

impl Ipam {
    /// Serves POST `/ipam/gc`. The work goes on when the caller is gone.
    pub(crate) async fn collect_garbage(
        self: &Arc<Self>,
        valid: ValidAttachments,
    ) -> Result<(), ReleaseError> {
        let span = info_span!("gc", network = valid.network, valid = valid.nics.len());
        let ipam = Arc::clone(self);
        let work = async move { ipam.collect(&valid).await };
        tokio::spawn(work.instrument(span)).await.unwrap_or(Err(ReleaseError::Broken))
    }

    /// All pods are tried; the first failure is answered, and the sweep tries again.
    async fn collect(&self, valid: &ValidAttachments) -> Result<(), ReleaseError> {
        self.start.wait().await?;
        let held = self.allocator.holdings().read(super::allocator::HoldingIndex::all);
        let stale = plan_address_gc(held, valid);
        let pods: BTreeSet<PodIdentity> =
            stale.into_iter().map(|object| object.holding.owner.pod.clone()).collect();
        let mut outcome = Ok(());
        for pod in pods {
            if let Err(error) = self.collect_pod(&pod, valid).await {
                warn!(%pod, %error, "addresses of ended attachments are not freed yet");
                self.sweeper.wake();
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    async fn collect_pod(&self, pod: &PodIdentity, valid: &ValidAttachments) -> Result<(), ReleaseError> {
        let _lock = self.pod_locks.lock(pod.name.clone()).await;
        let found = self.releaser.found(pod).await?;
        let evidence = evidence(found.as_deref(), SandboxState::Unlisted, None, None);
        // A new sandbox of the pod may have taken over what was stale a moment ago.
        let is_chosen = |holding: &Holding| {
            is_stale_address(holding, valid) && is_freed(plan_unless_kept(holding, &evidence))
        };
        self.releaser.end(pod, is_chosen).await.map(drop)
    }
}
