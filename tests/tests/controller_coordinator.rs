//! The coordinator's status follows what the cluster says of its networks.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::Bench;

async fn controller(bench: &Bench<'_>) -> StandaloneController {
    let folder = bench.folder("controllers");
    let name = bench.name("scc");
    let environment = [("SPIDERPOOL_COORDINATOR_DEAFULT_NAME", name.as_str())];
    let start = Start { folder: &folder, namespace: bench.namespace(), name: "a", environment: &environment };
    StandaloneController::start(ControlPlane::shared(), start).await.unwrap()
}

fn coordinator(bench: &Bench<'_>, spec: &Value) {
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderCoordinator",
        "metadata": {"name": bench.name("scc")}, "spec": spec,
    }));
}

fn status(bench: &Bench<'_>) -> Value {
    let plane = ControlPlane::shared();
    let text = plane.kubectl(&["get", "spidercoordinator", &bench.name("scc"), "-o", "json"]).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["status"].clone()
}

fn kubeadm(text: &str) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "kubeadm-config"},
        "data": {"ClusterConfiguration": text},
    });
    ControlPlane::shared().apply(&map.to_string()).unwrap();
}

/// Upstream stays NotReady until the controller is restarted.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_not_ready_recovers() {
    let bench = Bench::new("follow").await;
    coordinator(&bench, &json!({"podCIDRType": "cluster"}));
    let controller = controller(&bench).await;
    bench
        .until("it says that kubeadm-config is missing", async || {
            let status = status(&bench);
            status["phase"] == "NotReady"
                && status["reason"].as_str().is_some_and(|reason| reason.contains("does not exist"))
        })
        .await;
    let plane = ControlPlane::shared();
    bench
        .until("an event says so, too", async || {
            let name = format!("regarding.name={}", bench.name("scc"));
            let events =
                plane.kubectl(&["get", "events.events.k8s.io", "--field-selector", &name, "-o", "json"]);
            events.unwrap().contains("does not exist")
        })
        .await;

    kubeadm("networking:\n  podSubnet: \"10.244.0.0/16,fd44::/48\"\n  serviceSubnet: 10.96.0.0/16\n");
    let synced = json!({
        "phase": "Synced", "overlayPodCIDR": ["10.244.0.0/16", "fd44::/48"],
        "serviceCIDR": ["10.96.0.0/16", "fd96::/112"],
    });
    bench.until("it follows kubeadm-config", async || status(&bench) == synced).await;

    bench.apply(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["10.98.0.0/16"]},
    }));
    bench
        .until("it follows ServiceCIDRs", async || {
            status(&bench)["serviceCIDR"] == json!(["10.96.0.0/16", "fd96::/112", "10.98.0.0/16"])
        })
        .await;

    coordinator(&bench, &json!({"podCIDRType": "calico"}));
    bench
        .until("what is not built is said", async || {
            let status = status(&bench);
            status["phase"] == "NotReady"
                && status["reason"].as_str().is_some_and(|reason| reason.contains("not supported yet"))
                && status["overlayPodCIDR"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
    coordinator(&bench, &json!({}));
    bench
        .until("a type that is not set is none", async || {
            let status = status(&bench);
            status["phase"] == "Synced" && status["overlayPodCIDR"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
    controller.stop().unwrap();
}

/// Upstream's coordinator carries a finalizer that nobody removes.
#[tokio::test(flavor = "multi_thread")]
async fn the_finalizer_of_a_deleted_coordinator_is_removed() {
    let bench = Bench::new("finalizer").await;
    coordinator(&bench, &json!({}));
    let controller = controller(&bench).await;
    let (plane, name) = (ControlPlane::shared(), bench.name("scc"));
    let finalizer = r#"{"metadata": {"finalizers": ["spiderpool.spidernet.io"]}}"#;
    plane.kubectl(&["patch", "spidercoordinator", &name, "--type=merge", "-p", finalizer]).unwrap();
    plane.kubectl(&["delete", "spidercoordinator", &name, "--timeout=20s"]).unwrap();
    controller.stop().unwrap();
}
