//! Controllers that end, are away, or are not reached.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::poll;
use spiderpool_tests::standalone_controller::{LABEL, StandaloneController, Start, webhook_configurations};

use crate::hooks::Hooks;
use crate::support::LIMIT;

/// The first controller of an installation, or one whose API server cannot reach it. On a control plane of its own: other
/// controllers would complete the pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_has_a_status_although_its_spec_cannot_be_completed() {
    let (plane, folder) = (ControlPlane::start(Options::default()).unwrap(), tempfile::tempdir().unwrap());
    let pool = |name: &str| {
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
            "metadata": {"name": name, "labels": {LABEL: "hooks"}},
            "spec": {"subnet": "10.137.0.0/16", "ips": ["10.137.0.1-10.137.0.9"]},
        })
        .to_string()
    };
    plane.apply(&pool("p")).unwrap();
    let unused = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    for configuration in webhook_configurations("hooks", unused).unwrap() {
        plane.apply(&configuration.to_string()).unwrap();
    }
    let until = async |what: &str, check: &dyn Fn() -> bool| {
        let check = async || {
            anyhow::ensure!(check(), "not so");
            Ok(())
        };
        poll::until_async(what, LIMIT, check).await.unwrap();
    };
    until("the webhooks are called", &|| plane.apply(&pool("q")).is_err()).await;
    let environment =
        [("SPIDERPOOL_CONTROLLER_DEPLOYMENT_NAME", "hooks"), ("SPIDERPOOL_COORDINATOR_ENABLED", "false")];
    let start = Start { folder: folder.path(), namespace: "default", name: "a", environment: &environment };
    let _controller = StandaloneController::start(&plane, start).await.unwrap();
    let get = ["get", "sp", "p", "-o", "jsonpath={.status.totalIPCount}:{.spec.ipVersion}"];
    until("it has a status", &|| plane.kubectl(&get).unwrap() == "9:").await;
}

/// Requests come until every proxy has learned of the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_ends_answers_for_a_while() {
    let hooks = Hooks::new("hook-end").await;
    let delay = Duration::from_secs(10);
    let environment = [("SPIDERPOOL_SHUTDOWN_DELAY_SECONDS", "10")];
    let controller = hooks.controller("a", hooks.port, &environment).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let begun = Instant::now();
    let ending = std::thread::spawn(move || controller.stop());
    let mut answered = 0;
    for count in 0.. {
        let spec = json!({"ips": [format!("10.138.0.{count}")]});
        let written = Hooks::write(&hooks.object("SpiderReservedIP", "r", &spec));
        // On a busy machine a request may take so long that nothing is promised for it any more.
        if begun.elapsed() > delay {
            break;
        }
        written.unwrap();
        answered += 1;
        if begun.elapsed() > delay / 3 {
            break;
        }
    }
    assert!(answered > 0, "no request in {delay:?}");
    ending.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_is_away_stops_only_changes_of_our_specs_and_only_until_it_is_back() {
    let hooks = Hooks::new("hook-away").await;
    let controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.configure();
    hooks.wait_until_called().await;
    let pool =
        |ips: &[&str]| hooks.object("SpiderIPPool", "p", &json!({"subnet": "10.135.0.0/16", "ips": ips}));
    Hooks::write(&pool(&["10.135.0.1"])).unwrap();
    controller.kill().unwrap();

    let error = Hooks::write(&pool(&["10.135.0.2"])).unwrap_err();
    assert!(error.contains("failed calling webhook"), "{error}");
    let plane = ControlPlane::shared();
    let name = hooks.bench.name("p");
    plane.kubectl(&["label", "sp", &name, "a=b"]).unwrap();
    let status = json!({"status": {"allocatedIPCount": 1}}).to_string();
    plane.kubectl(&["patch", "sp", &name, "--subresource=status", "--type=merge", "-p", &status]).unwrap();
    // Objects of others, although they have the label.
    hooks.bench.apply(&json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": hooks.bench.namespace(), "labels": {LABEL: hooks.name}},
        "spec": {"containers": [{"name": "c", "image": "none"}]},
    }));
    hooks.bench.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": hooks.bench.namespace(), "labels": {LABEL: hooks.name}},
    }));
    let _controller = hooks.controller("a", hooks.port, &[]).await;
    hooks.bench.until("it is back", async || Hooks::write(&pool(&["10.135.0.2"])).is_ok()).await;
}
