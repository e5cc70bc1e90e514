//! The full comparison: everything is listed anew, apart from the watches, and what nothing uses is freed.

use kube::Api;
use spiderpool_api::crd::{SpiderEndpoint, SpiderIPAddress};
use spiderpool_api::pod::PodObject;
use spiderpool_runtime::kubernetes::Failure;
use spiderpool_runtime::watch::{Index as _, Shared};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::reconcile::PodReconciler;
use crate::leader::state::{ClusterState, PodAction, SlimAddress, SlimEndpoint, SlimNode, SlimPod, slim};

/// Compares at the configured interval until shutdown.
pub(super) async fn run(reconciler: PodReconciler, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(reconciler.settings.interval)).await.is_some() {
        match compare(&reconciler, &shutdown).await {
            Ok(freed) => info!(looked_at = freed, "full comparison done"),
            Err(error) => warn!(%error, "the full comparison could not be done, the next one follows"),
        }
    }
}

/// How many pods something was done about.
async fn compare(reconciler: &PodReconciler, shutdown: &CancellationToken) -> Result<usize, Failure> {
    let state = Shared::new(list(reconciler).await?);
    let policy = reconciler.settings.policy();
    let wrong: Vec<_> = state.write(|state| {
        state.mark_all_changed();
        let pods = state.take_pods();
        let is_wrong = |verdict| matches!(verdict, PodAction::Free(_) | PodAction::WriteEndpoint);
        pods.into_iter().filter(|id| is_wrong(state.evaluate(id, policy))).collect()
    });
    let live = PodReconciler { state, ..reconciler.clone() };
    for id in &wrong {
        if shutdown.is_cancelled() {
            break;
        }
        if let Err(error) = live.reconcile(id).await {
            warn!(%error, "left to the watches");
        }
    }
    Ok(wrong.len())
}

/// Addresses first: a pod that is listed after its address was there has it rightly, or is gone.
async fn list(reconciler: &PodReconciler) -> Result<ClusterState, Failure> {
    let client = reconciler.kube.client();
    let mut state = ClusterState::default();
    state
        .reset(reconciler.kube.pages(&Api::<SpiderIPAddress>::all(client.clone()), SlimAddress::from).await?);
    state
        .reset(reconciler.kube.pages(&Api::<SpiderEndpoint>::all(client.clone()), SlimEndpoint::from).await?);
    // A pod that is known and not listed has vanished, though the watch may not have said so yet.
    state.pods = reconciler.state.read(|known| known.pods.clone());
    state.reset(reconciler.kube.pages(&Api::<PodObject>::all(client.clone()), SlimPod::from).await?);
    state.reset(reconciler.kube.pages(&slim::nodes(client), SlimNode::from).await?);
    state.pools = reconciler.state.read(|known| known.pools.clone());
    Ok(state)
}
