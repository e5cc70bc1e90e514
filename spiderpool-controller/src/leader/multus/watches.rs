//! Follows SpiderMultusConfigs and NetworkAttachmentDefinitions. The kind of the latter may come later, with Multus.

use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use kube::runtime::watcher::{self, watcher};
use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_runtime::health::{Health, Scope};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::{Shared, follow, reduced};
use spiderpool_runtime::work_queue::WorkQueue;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::attachment::FoundAttachment;
use super::networks::Networks;
use super::object_key::ObjectKey;
use crate::network_attachment;

/// How often it is asked whether the API server has NetworkAttachmentDefinitions.
const POLL: Duration = Duration::from_secs(3);

/// After so many lists that failed, the networks' Events say so. One failure is nothing.
const SAID_AFTER: u32 = 3;

/// Follows both until shutdown, and adds each network that has changed to the queue.
pub(super) async fn run(
    kube: &Kubernetes,
    networks: &Shared<Networks>,
    queue: &WorkQueue<ObjectKey>,
    shutdown: &CancellationToken,
) {
    let enqueue = || networks.write(Networks::take_changed).into_iter().for_each(|key| queue.add(key));
    // A watch that fails says so in the log; the pods that run need no NetworkAttachmentDefinition.
    let health = Health::default();
    let configs = watcher(Api::<SpiderMultusConfig>::all(kube.client()), watcher::Config::default());
    let synced = health.condition("watch of SpiderMultusConfigs", Scope::Readiness);
    let configs = follow(configs, networks.clone(), synced, shutdown.clone(), enqueue);
    let attachments = async {
        let served = until_served(kube, networks, enqueue);
        if shutdown.run_until_cancelled(served).await.is_none() {
            return;
        }
        let objects = watcher(network_attachment::all(kube.client()), watcher::Config::default());
        let objects = reduced(objects, FoundAttachment::from);
        let synced = health.condition("watch of NetworkAttachmentDefinitions", Scope::Readiness);
        follow(objects, networks.clone(), synced, shutdown.clone(), enqueue).await;
    };
    tokio::join!(configs, attachments);
}

async fn until_served(kube: &Kubernetes, networks: &Shared<Networks>, changed: impl Fn()) {
    let api = network_attachment::all(kube.client());
    let (mut is_missing, mut failures) = (false, 0);
    loop {
        match kube.read(api.list_metadata(&ListParams::default().limit(1))).await {
            Ok(_) => return,
            Err(failure) if failure.is_not_found() => {
                failures = 0;
                if !is_missing {
                    info!("the API server has no NetworkAttachmentDefinitions yet: Multus is not installed");
                    is_missing = true;
                    networks.write(Networks::set_not_served);
                    changed();
                }
            }
            Err(error) => {
                warn!(%error, "cannot find out whether there are NetworkAttachmentDefinitions, trying again");
                failures += 1;
                if failures >= SAID_AFTER {
                    is_missing = false;
                    networks.write(|networks| networks.set_unreadable(error.to_string()));
                    changed();
                }
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
