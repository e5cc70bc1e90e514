//! What may change the status: the coordinator itself, kubeadm's ConfigMap, the ServiceCIDRs.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use spiderpool_api::crd::SpiderCoordinator;
use spiderpool_runtime::work_queue::WorkQueue;
use tracing::warn;

use super::source::{KUBEADM, ServiceCidr};

/// Events within this time cause one reconciliation.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Adds the coordinator `name` to the queue at each event. Never ends.
pub(super) async fn run(
    client: Client,
    services: Option<&Api<ServiceCidr>>,
    name: &Arc<str>,
    queue: &WorkQueue<Arc<str>>,
) {
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let coordinators = watcher(Api::<SpiderCoordinator>::all(client.clone()), named(name));
    let maps = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client, KUBEADM.0);
    let maps = watcher(maps, named(KUBEADM.1));
    let enqueue = || queue.add_after(Arc::clone(name), DEBOUNCE);
    let services = async {
        match services {
            Some(api) => {
                let services = watcher(api.clone(), watcher::Config::default());
                follow(services, "ServiceCIDRs", enqueue).await;
            }
            None => std::future::pending::<()>().await,
        }
    };
    futures::join!(
        follow(coordinators, "SpiderCoordinator", enqueue),
        follow(maps, "kubeadm-config", enqueue),
        services
    );
}

async fn follow<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>>,
    watch: &'static str,
    changed: impl Fn(),
) {
    let mut events = pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => changed(),
            Err(error) => warn!(watch, %error, "watch failed, trying again"),
        }
    }
}
