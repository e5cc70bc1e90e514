//! The reconciler of SpiderSubnets: their status, the pools that are made of them for applications, and pools that become theirs. Where
//! they are switched off, those that are there are shown in the metrics, and may be deleted.
//!
//! What is to be done for a subnet is decided in `spiderpool_core::subnet`. One subnet is reconciled at a time, so that nobody
//! else cuts pools from it; another leader that does not know yet that it is none fails at the subnet's resourceVersion.

mod applications;
mod events;
mod finalizer;
mod gauges;
mod known;
mod objects;
mod presence;
mod reconcile;
mod view;
mod watches;

use std::collections::HashSet;
use std::sync::Arc;

use kube::runtime::events::Recorder;
use spiderpool_core::names::PoolName;
use spiderpool_runtime::health::Health;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::{WorkQueue, Workers, work_queue};
use tokio_util::sync::CancellationToken;

use super::metrics::SubnetGauges;
use super::state::ClusterState;
use crate::config::SubnetSettings;
use applications::AllApplications;
use finalizer::SubnetFinalizer;
use known::SubnetIndex;
use reconcile::SubnetReconciler;

/// Subnets that are reconciled at a time.
const WORKERS: usize = 4;

/// What wakes the reconciler. Cheap to clone.
#[derive(Clone)]
pub(super) struct SubnetTrigger {
    index: Shared<SubnetIndex>,
    queue: WorkQueue<PoolName>,
}

impl SubnetTrigger {
    /// These pools have changed, or addresses of them; and what third parties want of these subnets.
    pub(super) fn changed(
        &self,
        state: &Shared<ClusterState>,
        pools: &HashSet<Arc<str>>,
        subnets: HashSet<PoolName>,
    ) {
        let traces = state.read(|state| view::trace_all(state, pools));
        let of_pools = self.index.write(|index| index.changed_by(traces));
        subnets.into_iter().chain(of_pools).for_each(|subnet| self.queue.add(subnet));
    }
}

/// The reconciler before it runs: whoever changes the state has its trigger.
pub(super) struct Subnets {
    kube: Kubernetes,
    settings: SubnetSettings,
    /// Where metrics are served.
    gauges: Option<SubnetGauges>,
    trigger: SubnetTrigger,
    workers: Workers<PoolName>,
}

impl Subnets {
    pub(super) fn new(kube: Kubernetes, settings: SubnetSettings, gauges: Option<SubnetGauges>) -> Self {
        let (queue, workers) = work_queue();
        let trigger = SubnetTrigger { index: Shared::default(), queue };
        Self { kube, settings, gauges, trigger, workers }
    }

    /// `None` where they are switched off: nobody else's changes concern them.
    pub(super) fn trigger(&self) -> Option<SubnetTrigger> {
        self.settings.enabled.then(|| self.trigger.clone())
    }

    /// Reconciles until shutdown. The leader's watches have listed.
    pub(super) async fn run(
        self,
        state: Shared<ClusterState>,
        recorder: Recorder,
        shutdown: CancellationToken,
    ) {
        let Self { kube, settings, gauges, trigger: SubnetTrigger { index, queue }, workers } = self;
        let applications = AllApplications::default();
        let watches = watches::Watches {
            kube: &kube,
            index: &index,
            applications: &applications,
            gauges: gauges.as_ref(),
            settings,
            queue: &queue,
            health: Health::default(),
        };
        if !settings.enabled {
            let finalizer = SubnetFinalizer::new(kube.clone(), index.clone());
            tokio::join!(workers.run(WORKERS, &finalizer, &shutdown), watches.run(&shutdown));
            return;
        }
        let reconciler = SubnetReconciler::new(
            kube.clone(),
            settings,
            state,
            index.clone(),
            applications.clone(),
            recorder,
        );
        // A pool whose application is not known yet would look as if that were gone.
        let reconciling = async {
            watches.listed(&shutdown).await;
            workers.run(WORKERS, &reconciler, &shutdown).await;
        };
        tokio::join!(reconciling, watches.run(&shutdown));
    }
}
