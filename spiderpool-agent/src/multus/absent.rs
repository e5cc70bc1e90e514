//! Where the chart does not bring Multus: what an earlier release has put on the node goes, and if nobody else has
//! configured Multus there, the node says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use spiderpool_core::multus_conf::has_multus;
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::Kubernetes;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::conf_dir;
use super::place::Place;
use super::removal::{has_rest, pods_made_until, remove_rest, withdraw};
use super::withdrawal::withdrawn_at;
use crate::node::HostFolder;
use crate::node_events::NodeEvents;

/// How often the node is looked at.
const PERIOD: Duration = Duration::from_secs(30);
/// How often it is looked whether pods that Multus has made are left.
const REMOVAL_PERIOD: Duration = Duration::from_mins(10);
/// So many looks without a Multus make an Event: it may be installed at this very moment.
const MISSING: u32 = 3;
/// After so many more, again: Events are deleted, after an hour as a rule.
const AGAIN: u32 = 100;

/// Never ends.
pub(super) async fn run(dir: PathBuf, place: Place, kube: Kubernetes, events: NodeEvents) {
    take_away(&dir).await;
    let until = withdrawn_at(&dir);
    let (mut removal, mut missing) = (Instant::now(), 0);
    loop {
        if Instant::now() >= removal {
            take_rest_away(&dir, until, &place, &kube).await;
            removal = Instant::now() + REMOVAL_PERIOD;
        }
        missing = if is_missing(&dir) { missing + 1 } else { 0 };
        if missing % AGAIN == MISSING {
            let note = format!(
                "multus.multusCNI.install is false, and no file in {} configures Multus: pods get no further NICs, and \
                 nothing else says so. Install Multus, or set multus.multusCNI.install=true",
                dir.display()
            );
            warn!(reason = "NoMultus", "{note}");
            events.multus("NoMultus", note);
        }
        sleep(PERIOD).await;
    }
}

/// A directory that cannot be read says nothing.
fn is_missing(dir: &Path) -> bool {
    conf_dir::read(dir).is_ok_and(|files| !has_multus(&files))
}

/// An upgrade to a release without Multus.
async fn take_away(dir: &Path) {
    let mut pause = PERIOD / 10;
    loop {
        match withdraw(dir) {
            Ok(false) => return,
            Ok(true) => {
                info!(folder = %dir.display(), "Multus is not to be installed: its configuration is removed");
                return;
            }
            Err(error) => {
                warn!(%error, folder = %dir.display(), "Multus' configuration cannot be removed, trying again");
            }
        }
        sleep(pause).await;
        pause = pause.saturating_mul(2).min(backoff::MAX_PAUSE);
    }
}

/// Removes program and kubeconfig when no pod is left that Multus has made.
async fn take_rest_away(dir: &Path, until: SystemTime, place: &Place, kube: &Kubernetes) {
    let Some(cni_bin) = &place.cni_bin else { return };
    let Ok(folder) = HostFolder::open(&place.host, cni_bin) else { return };
    if !has_rest(dir, &folder.path()) {
        return;
    }
    match pods_made_until(until, kube, &place.node).await {
        Ok(pods) if pods.is_empty() => match remove_rest(dir, &folder.path()).as_slice() {
            [] => {
                info!("no pod is left that Multus has made: its program and kubeconfig are removed");
            }
            failures => warn!(?failures, "Multus' program or kubeconfig cannot be removed"),
        },
        Ok(pods) => {
            info!(pods = pods.len(), "Multus' program and kubeconfig stay for the end of these pods");
        }
        Err(error) => warn!(%error, "pods that Multus has made cannot be listed, trying again"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use axum::http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::super::kubeconfig;
    use super::*;

    /// An API server with these pods on the node.
    fn api_server(pods: &serde_json::Value) -> Kubernetes {
        let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}).to_string();
        let service = tower::service_fn(move |_: Request<Body>| {
            let answer = list.clone().into_bytes();
            async move { Ok::<_, std::io::Error>(Response::new(Body::from(answer))) }
        });
        Kubernetes::new(Client::new(service, "default"))
    }

    #[tokio::test]
    async fn what_multus_needs_to_end_pods_goes_with_the_last_pod_that_it_has_made() {
        let host = tempfile::tempdir().unwrap();
        let dir = host.path().join("net.d");
        fs::create_dir_all(dir.join("multus.d")).unwrap();
        fs::create_dir(host.path().join("bin")).unwrap();
        let kubeconfig = dir.join(kubeconfig::FILE);
        fs::write(&kubeconfig, r#"{"current-context":"spiderpool-multus"}"#).unwrap();
        fs::write(dir.join("00-multus.conf"), r#"{"type":"multus","managedBy":"spiderpool"}"#).unwrap();
        let place = Place {
            node: "n".parse().unwrap(),
            host: host.path().to_owned(),
            cni_bin: Some("/bin".into()),
            namespace: "spiderpool".to_owned(),
            cluster_network: String::new(),
        };
        take_away(&dir).await;
        assert!(!dir.join("00-multus.conf").exists() && is_missing(&dir));
        let pod = |created: &str| json!([{"metadata": {"name": "p", "namespace": "d", "creationTimestamp": created}, "spec": {"containers": []}}]);
        let until = withdrawn_at(&dir);
        take_rest_away(&dir, until, &place, &api_server(&pod("2001-01-01T00:00:00Z"))).await;
        assert!(kubeconfig.exists());
        take_rest_away(&dir, until, &place, &api_server(&pod("2999-01-01T00:00:00Z"))).await;
        assert!(!kubeconfig.exists());
    }

    /// Nothing else says why pods have no further NICs.
    #[tokio::test(start_paused = true)]
    async fn a_node_without_any_multus_says_so_and_again_when_the_event_is_gone() {
        let host = tempfile::tempdir().unwrap();
        let place = Place {
            node: "n".parse().unwrap(),
            host: host.path().to_owned(),
            cni_bin: None,
            namespace: "spiderpool".to_owned(),
            cluster_network: String::new(),
        };
        let (events, mut said) = NodeEvents::new();
        let dir = host.path().to_owned();
        let running = tokio::spawn(run(dir.clone(), place, api_server(&json!([])), events));
        sleep(PERIOD * (MISSING + 3)).await;
        assert!(format!("{:?}", said.try_recv()).contains("NoMultus") && said.is_empty());
        sleep(PERIOD * AGAIN).await;
        assert!(format!("{:?}", said.try_recv()).contains("NoMultus") && said.is_empty());
        fs::write(dir.join("00-multus.conf"), r#"{"type":"multus-shim"}"#).unwrap();
        sleep(PERIOD * (MISSING + 3)).await;
        assert!(said.is_empty() && !running.is_finished());
        running.abort();
    }
}
