//! The full resync: everything is listed anew, apart from the watches, and what they missed is done.

use kube::Api;
use spiderpool_api::crd::{SpiderEndpoint, SpiderIPAddress};
use spiderpool_api::node::nodes;
use spiderpool_api::pod::PodObject;
use spiderpool_api::stateful_set::all_stateful_sets;
use spiderpool_api::virtual_machine::MachineKind;
use spiderpool_runtime::kubernetes::ApiFailure;
use spiderpool_runtime::watch::{Index as _, Shared};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::actuator::Actuator;
use crate::leader::state::{
    ClusterState, PodAction, SlimAddress, SlimEndpoint, SlimMachine, SlimNode, SlimPod, SlimStatefulSet,
};

/// Compares at the configured interval until shutdown.
pub(super) async fn run(actuator: &Actuator, shutdown: &CancellationToken) {
    let interval = actuator.settings.interval;
    while shutdown.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
        match resync(actuator, shutdown).await {
            Ok(pods) => info!(pods, "full resync done"),
            Err(error) => warn!(%error, "full resync failed, the next one follows at the interval"),
        }
    }
}

/// How many pods there was something to do about.
async fn resync(actuator: &Actuator, shutdown: &CancellationToken) -> Result<usize, ApiFailure> {
    let state = Shared::new(list(actuator).await?);
    let policy = actuator.settings.policy();
    let deviating: Vec<_> = state.write(|state| {
        state.mark_all_changed();
        let pods = state.take_changes().pods;
        let deviates = |action| {
            matches!(
                action,
                PodAction::Free(_)
                    | PodAction::Keep
                    | PodAction::HandOver
                    | PodAction::FreeKept
                    | PodAction::FreeQuarantined
                    | PodAction::WriteEndpoint
                    | PodAction::RestoreAddresses
                    | PodAction::FinalizeEndpoint
            )
        };
        pods.into_iter().filter(|id| deviates(state.evaluate(id, policy))).collect()
    });
    let waiting: Vec<_> = state.read(|state| state.addresses.names_with_kept().cloned().collect());
    let listed = Actuator { state, ..actuator.clone() };
    for id in &deviating {
        if shutdown.is_cancelled() {
            break;
        }
        if let Err(error) = listed.act(id).await {
            warn!(pod = %id, reason = error.reason(), %error, "pod not reconciled by the full resync");
        }
    }
    let unused: Vec<_> = listed.state.read(|state| state.unused_endpoints().collect());
    for id in &unused {
        if shutdown.is_cancelled() {
            break;
        }
        if let Err(error) = listed.remove_unused_endpoint(id).await {
            warn!(pod = %id, reason = error.reason(), %error, "endpoint not reviewed by the full resync");
        }
    }
    for name in &waiting {
        if shutdown.is_cancelled() {
            break;
        }
        if let Err(error) = listed.free_kept_for_running(name).await {
            warn!(pod = %name, reason = error.reason(), %error, "what is kept for the pod was not reviewed by the full resync");
        }
    }
    Ok(deviating.len())
}

/// Addresses first: a pod that is listed after its address either has it rightly or is gone.
async fn list(actuator: &Actuator) -> Result<ClusterState, ApiFailure> {
    let client = actuator.kube.client();
    let mut state = ClusterState::default();
    state.reset(actuator.kube.pages(&Api::<SpiderIPAddress>::all(client.clone()), SlimAddress::from).await?);
    state.reset(actuator.kube.pages(&Api::<SpiderEndpoint>::all(client.clone()), SlimEndpoint::from).await?);
    // A known pod that is not listed was deleted, though the watch may not have delivered that yet.
    state.pods = actuator.state.read(|known| known.pods.clone());
    state.reset(actuator.kube.pages(&Api::<PodObject>::all(client.clone()), SlimPod::from).await?);
    // Since when nodes are not ready, and what their agents have said.
    (state.nodes, state.node_leases) =
        actuator.state.read(|known| (known.nodes.clone(), known.node_leases.clone()));
    state.reset(actuator.kube.pages(&nodes(client.clone()), SlimNode::from).await?);
    if actuator.settings.kept.stateful_sets {
        let sets = all_stateful_sets(client);
        state.reset(actuator.kube.pages(&sets, SlimStatefulSet::from).await?);
    }
    if actuator.settings.kept.virtual_machines && state.addresses.has_virtual_machines() {
        for kind in [MachineKind::Machine, MachineKind::Instance] {
            list_machines(actuator, kind, &mut state).await;
        }
    }
    state.pools = actuator.state.read(|known| known.pools.clone());
    Ok(state)
}

/// What cannot be listed is not taken for absent: then nothing of virtual machines is freed.
async fn list_machines(actuator: &Actuator, kind: MachineKind, state: &mut ClusterState) {
    match actuator.kube.pages(&kind.all_metadata(actuator.kube.client()), SlimMachine::from).await {
        Ok(machines) => state.reset_machines(kind, Some(&machines)),
        Err(error) => {
            warn!(kind = kind.as_str(), %error, "virtual machines cannot be listed: what is kept for them stays so");
        }
    }
}
