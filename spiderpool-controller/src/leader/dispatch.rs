//! From changes of the state to keys of the queues: a change reaches the reconcilers that it concerns, and no others.

use std::sync::Arc;

use spiderpool_core::names::PodIdentity;
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::WorkQueue;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::coordinator::CoordinatorTrigger;
use super::pods::PodReconciler;
use super::pools::{self, PoolKey};
use super::state::ClusterState;
use super::subnets::SubnetTrigger;

/// The state, and the queues that its changes go to.
pub(super) struct Dispatcher {
    pub(super) state: Shared<ClusterState>,
    pub(super) pods: Arc<PodReconciler>,
    pub(super) pod_queue: WorkQueue<PodIdentity>,
    pub(super) pool_queue: WorkQueue<PoolKey>,
    /// Absent where there are no SpiderSubnets.
    pub(super) subnets: Option<SubnetTrigger>,
    /// Absent where no coordinator is reconciled.
    pub(super) coordinator: Option<CoordinatorTrigger>,
}

impl Dispatcher {
    /// Dispatches until shutdown whenever it is notified. The watches have listed: before that, a pod that is not
    /// listed yet would look as if it were gone.
    pub(super) async fn run(self, changed: Arc<Notify>, shutdown: CancellationToken) {
        loop {
            let changes = self.state.write(ClusterState::take_changes);
            self.pods.enqueue(changes.pods, &self.pod_queue);
            if let Some(subnets) = &self.subnets {
                subnets.changed(&self.state, &changes.pools, changes.subnets);
            }
            pools::enqueue(changes.pools, &self.pool_queue);
            if changes.node_cidrs
                && let Some(coordinator) = &self.coordinator
            {
                coordinator.changed();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed.notified() => {}
            }
        }
    }
}
