//! What may change the status. A kind that is not served is looked for again and again, and watched once it is there.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client};
use spiderpool_api::crd::PodCidrType;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::is_not_served;
use spiderpool_runtime::work_queue::WorkQueue;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::kinds::{Watched, WatchedObject};

/// Events within this time cause one reconciliation.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Pause before a kind that is not served is looked for again.
const DISCOVERY: Duration = Duration::from_secs(10);

/// Adds the coordinator `name` to the queue at each event of the objects that its type is made of. Never ends.
pub(super) async fn run(
    kube: &Kubernetes,
    watched: &[Watched],
    kind: &watch::Receiver<PodCidrType>,
    name: &Arc<str>,
    queue: &WorkQueue<Arc<str>>,
) {
    let changed = || queue.add_after(Arc::clone(name), DEBOUNCE);
    join_all(watched.iter().map(|watched| while_needed(kube, watched, kind.clone(), &changed))).await;
}

async fn while_needed(
    kube: &Kubernetes,
    watched: &Watched,
    mut kind: watch::Receiver<PodCidrType>,
    changed: &impl Fn(),
) {
    loop {
        if kind.wait_for(|kind| watched.types.contains(kind)).await.is_err() {
            // Its sender is gone: the reconciler ends.
            return;
        }
        tokio::select! {
            () = follow(kube, watched, changed) => {}
            _ = kind.wait_for(|kind| !watched.types.contains(kind)) => {}
        }
    }
}

/// Watches the kind in the first version that is served; ends when it is not served any more, or not yet.
async fn follow(kube: &Kubernetes, watched: &Watched, changed: &impl Fn()) {
    let name = watched.name;
    match served(kube, watched).await {
        Some(api) => {
            watch_served(api, watched, changed).await;
            debug!(watch = name, "kind is not served any more");
            changed();
        }
        None => tokio::time::sleep(DISCOVERY).await,
    }
}

async fn served(kube: &Kubernetes, watched: &Watched) -> Option<Api<WatchedObject>> {
    for resource in &watched.resources {
        let client: Client = kube.client();
        let api = watched.api(client, resource);
        match kube.read(api.list(&watched.probe())).await {
            Ok(_) => return Some(api),
            Err(failure) if failure.is_not_found() => {}
            Err(error) => warn!(watch = watched.name, %error, "kind cannot be listed, trying again"),
        }
    }
    None
}

async fn watch_served(api: Api<WatchedObject>, watched: &Watched, changed: &impl Fn()) {
    let mut events = pin!(watcher(api, watched.config()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init | Event::InitApply(_)) => {}
            Ok(_) => changed(),
            Err(error) if is_not_served(&error) => return,
            Err(error) => warn!(watch = watched.name, %error, "watch failed, trying again"),
        }
    }
}
