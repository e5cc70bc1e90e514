//! Watches of KubeVirt's virtual machines: begun when a pod of one has addresses that stay with it, so that a cluster without
//! KubeVirt is asked for nothing. While a kind cannot be watched, nothing says that a virtual machine is gone.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use spiderpool_api::virtual_machine::MachineKind;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::{Shared, is_not_served};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::state::{ClusterState, SlimMachine};

/// How often it is looked whether there are such pods, in what is known.
const NEED: Duration = Duration::from_secs(1);
/// Pause before a kind that is not served is looked for again.
const DISCOVERY: Duration = Duration::from_secs(10);
/// Objects of a page of the list.
const PAGE: u32 = 200;

/// Watches a kind until shutdown; notifies `changed` of what has changed.
pub(super) async fn run(
    kube: Kubernetes,
    kind: MachineKind,
    state: Shared<ClusterState>,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
) {
    shutdown.run_until_cancelled(while_needed(&kube, kind, &state, &changed)).await;
}

async fn while_needed(kube: &Kubernetes, kind: MachineKind, state: &Shared<ClusterState>, changed: &Notify) {
    loop {
        while !state.read(|state| state.addresses.has_virtual_machines()) {
            tokio::time::sleep(NEED).await;
        }
        follow(kube, kind, state, changed).await;
        warn!(
            kind = kind.as_str(),
            "kubevirt.io/v1 is not served: addresses of virtual machines stay kept until it is"
        );
        state.write(|state| state.reset_machines(kind, None));
        tokio::time::sleep(DISCOVERY).await;
    }
}

/// Ends when the kind is not served, or not any more.
async fn follow(kube: &Kubernetes, kind: MachineKind, state: &Shared<ClusterState>, changed: &Notify) {
    let config = watcher::Config::default().page_size(PAGE);
    let mut events = pin!(watcher(kind.all_metadata(kube.client()), config).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.push(SlimMachine::from(object)),
            Ok(Event::InitDone) => {
                let machines = std::mem::take(&mut listed);
                state.write(|state| state.reset_machines(kind, Some(&machines)));
                changed.notify_one();
            }
            Ok(Event::Apply(object)) => {
                state.write(|state| state.apply_machine(kind, &object.into()));
                changed.notify_one();
            }
            Ok(Event::Delete(object)) => {
                state.write(|state| state.delete_machine(kind, &object.into()));
                changed.notify_one();
            }
            Err(error) if is_not_served(&error) => return,
            Err(error) => warn!(kind = kind.as_str(), %error, "watch failed, trying again"),
        }
    }
}
