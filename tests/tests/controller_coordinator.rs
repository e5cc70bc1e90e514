//! The coordinator's status follows what the cluster says of its networks.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::kubectl::Kubectl as _;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use spiderpool_tests::{long_form, poll};
use support::Bench;
use tokio::sync::{Mutex, MutexGuard};

/// As Calico and Cilium define their kinds.
const CALICO_3_26: &str = include_str!("../fixtures/cni/calico-v3.26.yaml");
const CALICO_3_30: &str = include_str!("../fixtures/cni/calico-v3.30.yaml");
const CILIUM_1_17: &str = include_str!("../fixtures/cni/cilium-v1.17.yaml");
const CILIUM_V2: &str = include_str!("../fixtures/cni/cilium-v2.yaml");

/// Each test has the cluster's networks to itself.
async fn networks() -> MutexGuard<'static, ()> {
    static NETWORKS: Mutex<()> = Mutex::const_new(());
    NETWORKS.lock().await
}

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
    let found = ControlPlane::shared().find(Kind::spiderpool("SpiderCoordinator"), "", &bench.name("scc"));
    found.unwrap().unwrap()["status"].clone()
}

fn reason_has(bench: &Bench<'_>, parts: &[&str]) -> bool {
    let status = status(bench);
    let reason = status["reason"].as_str().unwrap_or_default();
    status["phase"] == "NotReady" && parts.iter().all(|part| reason.contains(part))
}

async fn until_pods(bench: &Bench<'_>, what: &str, cidrs: &[&str]) {
    bench.until_ok(what, async || are_pods(bench, cidrs)).await;
}

fn are_pods(bench: &Bench<'_>, cidrs: &[&str]) -> anyhow::Result<()> {
    let status = status(bench);
    let is_so = status["phase"] == "Synced" && status["overlayPodCIDR"] == json!(cidrs);
    anyhow::ensure!(is_so, "the status is {status}");
    Ok(())
}

/// Definitions of a foreign project, and waits until they are served.
async fn define(bench: &Bench<'_>, definitions: &str) {
    let plane = ControlPlane::shared();
    plane.apply(definitions).unwrap();
    bench
        .until("the kinds are served", async || {
            let condition = "--for=condition=established";
            plane.kubectl_with_input(&["wait", condition, "--timeout=10s", "-f", "-"], definitions).is_ok()
        })
        .await;
}

fn delete(object: &str) {
    ControlPlane::shared().kubectl(&["delete", "--wait", "--ignore-not-found", object]).unwrap();
}

fn ip_pool(version: &str, name: &str, spec: &Value) -> String {
    let group = if version == "v1" { "crd.projectcalico.org" } else { "projectcalico.org" };
    let mut object = json!({
        "apiVersion": format!("{group}/{version}"), "kind": "IPPool", "metadata": {"name": name},
        "spec": {"blockSize": 26, "ipipMode": "Always", "natOutgoing": true, "nodeSelector": "all()", "vxlanMode": "Never"},
    });
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object.to_string()
}

fn cilium(data: &Value) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "kube-system", "name": "cilium-config"},
        "data": data,
    });
    ControlPlane::shared().apply(&map.to_string()).unwrap();
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
    let _networks = networks().await;
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
            let name = format!("involvedObject.name={}", bench.name("scc"));
            plane
                .events("", &name)
                .unwrap()
                .iter()
                .any(|event| event["message"].to_string().contains("does not exist"))
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
        .until("what another type lacks is said, and running pods keep what they have", async || {
            reason_has(
                &bench,
                &["the API server knows no IPPool", "spec.hijackCIDR", "known before are kept"],
            ) && status(&bench)["overlayPodCIDR"] == synced["overlayPodCIDR"]
        })
        .await;
    coordinator(&bench, &json!({}));
    until_pods(&bench, "a type that is not set is auto", &["10.244.0.0/16", "fd44::/48"]).await;
    plane.kubectl(&["-n", "kube-system", "delete", "configmap", "kubeadm-config"]).unwrap();
    bench
        .until("what is deleted is gone", async || reason_has(&bench, &["kubeadm-config does not exist"]))
        .await;
    controller.stop().unwrap();
    delete("servicecidr/more");
}

/// Upstream reads Calico's pools only if the network was found out to be Calico's when the controller started.
#[tokio::test(flavor = "multi_thread")]
async fn auto_follows_calicos_pools_whose_definition_comes_later() {
    let _networks = networks().await;
    let bench = Bench::new("calico").await;
    let plane = ControlPlane::shared();
    coordinator(&bench, &json!({"podCIDRType": "auto"}));
    let controller = controller(&bench).await;
    bench.until("nothing is there", async || reason_has(&bench, &["no Node has spec.podCIDRs"])).await;

    define(&bench, CALICO_3_26).await;
    plane.apply(&ip_pool("v1", "a", &json!({"cidr": "10.244.0.0/16"}))).unwrap();
    until_pods(&bench, "the definition is found", &["10.244.0.0/16"]).await;
    let before = Instant::now();
    plane.apply(&ip_pool("v1", "b", &json!({"cidr": "fd00:244::/48", "disabled": true}))).unwrap();
    until_pods(&bench, "a pool is added", &["10.244.0.0/16", "fd00:244::/48"]).await;
    assert!(before.elapsed() < Duration::from_secs(15), "by its watch: {:?}", before.elapsed());

    // Calico's API server shows the same pools, in the form of a later version.
    define(&bench, CALICO_3_30).await;
    let later = |name: &str, cidr: &str| {
        let spec =
            json!({"cidr": cidr, "assignmentMode": "Automatic", "allowedUses": ["Workload", "Tunnel"]});
        plane.apply(&ip_pool("v3", name, &spec)).unwrap();
    };
    later("a", "10.244.0.0/16");
    later("c", "10.245.0.0/16");
    until_pods(&bench, "both groups count", &["10.244.0.0/16", "fd00:244::/48", "10.245.0.0/16"]).await;
    delete("ippools.v1.crd.projectcalico.org/b");
    until_pods(&bench, "a deleted pool is gone", &["10.244.0.0/16", "10.245.0.0/16"]).await;

    delete("crd/ippools.projectcalico.org");
    // Its watch may not have begun: then all is read again after a minute.
    let gone = async || are_pods(&bench, &["10.244.0.0/16"]);
    poll::until_async("a definition may go", Duration::from_secs(90), gone).await.unwrap();
    plane.apply(&ip_pool("v1", "d", &json!({"cidr": "10.246.0.0"}))).unwrap();
    bench
        .until("an invalid entry is named", async || {
            let status = status(&bench);
            let reason = status["reason"].as_str().unwrap_or_default();
            status["overlayPodCIDR"] == json!(["10.244.0.0/16"])
                && reason.contains("Calico IPPool d: spec.cidr: Invalid value: \"10.246.0.0\"")
        })
        .await;
    coordinator(&bench, &json!({"podCIDRType": "calico"}));
    plane.kubectl(&["delete", "ippools.v1.crd.projectcalico.org", "--all"]).unwrap();
    bench.until("no pool is left", async || reason_has(&bench, &["there is no IPPool"])).await;
    controller.stop().unwrap();
    delete("crd/ippools.crd.projectcalico.org");
}

#[tokio::test(flavor = "multi_thread")]
async fn cilium_in_all_its_modes() {
    let _networks = networks().await;
    let bench = Bench::new("cilium").await;
    let plane = ControlPlane::shared();
    coordinator(&bench, &json!({"podCIDRType": "cilium"}));
    let controller = controller(&bench).await;
    bench
        .until("its ConfigMap is missing", async || {
            reason_has(&bench, &["kube-system/cilium-config does not exist", "global.ciliumConfigMap"])
        })
        .await;
    coordinator(&bench, &json!({"podCIDRType": "auto"}));
    // The definition of CiliumPodIPPool does not exist, which upstream wants for every mode.
    cilium(&json!({"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.0.0.0/8", "enable-ipv6": "false"}));
    until_pods(&bench, "the chart's default", &["10.0.0.0/8"]).await;
    cilium(&json!({"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.1.0.0/16 10.2.0.0/16",
        "cluster-pool-ipv6-cidr": "fd00::/104"}));
    until_pods(&bench, "lists of both families", &["10.1.0.0/16", "10.2.0.0/16", "fd00::/104"]).await;
    cilium(&json!({"ipam": "cluster-pool"}));
    bench.until("a ConfigMap without pools", async || reason_has(&bench, &["has no CIDR in"])).await;
    cilium(&json!({"ipam": "eni"}));
    bench.until("a mode of a cloud", async || reason_has(&bench, &["mode eni is not supported"])).await;

    cilium(&json!({"ipam": "kubernetes"}));
    bench.until("nodes have no CIDRs", async || reason_has(&bench, &["no Node has spec.podCIDRs"])).await;
    for (name, cidr) in [("one", "10.42.0.0/24"), ("two", "10.42.1.0/24")] {
        let spec = json!({"podCIDR": cidr, "podCIDRs": [cidr]});
        bench.apply(
            &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": bench.name(name)}, "spec": spec}),
        );
    }
    until_pods(&bench, "the nodes' CIDRs", &["10.42.0.0/23"]).await;
    delete(&format!("node/{}", bench.name("two")));
    until_pods(&bench, "a node is gone", &["10.42.0.0/24"]).await;
    delete(&format!("node/{}", bench.name("one")));

    cilium(&json!({"ipam": "multi-pool"}));
    bench.until("no pool", async || reason_has(&bench, &["no CiliumPodIPPool"])).await;
    define(&bench, CILIUM_1_17).await;
    let pool = |version: &str, name: &str, cidrs: &Value| {
        let spec = json!({"ipv4": {"cidrs": cidrs, "maskSize": 27}});
        let object = json!({"apiVersion": format!("cilium.io/{version}"), "kind": "CiliumPodIPPool",
            "metadata": {"name": name}, "spec": spec});
        plane.apply(&object.to_string()).unwrap();
    };
    pool("v2alpha1", "default", &json!(["10.10.0.0/16", "10.11.0.0/16"]));
    until_pods(&bench, "the definition is found", &["10.10.0.0/16", "10.11.0.0/16"]).await;
    define(&bench, CILIUM_V2).await;
    pool("v2", "later", &json!([{"cidr": "10.20.0.0/16", "reservedRange": "10.20.0.1-10.20.0.9"}]));
    until_pods(&bench, "both versions", &["10.10.0.0/16", "10.11.0.0/16", "10.20.0.0/16"]).await;
    controller.stop().unwrap();
    delete("crd/ciliumpodippools.cilium.io");
    plane.kubectl(&["-n", "kube-system", "delete", "configmap", "cilium-config"]).unwrap();
}

/// Calico gives the addresses, and Cilium's ConfigMap has a pool that nobody uses.
#[tokio::test(flavor = "multi_thread")]
async fn cilium_chained_on_calico_is_calico() {
    if !long_form::asked_for_or_skip("cilium_chained_on_calico_is_calico") {
        return;
    }
    let _networks = networks().await;
    let bench = Bench::new("chained").await;
    define(&bench, CALICO_3_26).await;
    let plane = ControlPlane::shared();
    plane.apply(&ip_pool("v1", "a", &json!({"cidr": "10.244.0.0/16"}))).unwrap();
    cilium(&json!({"cluster-pool-ipv4-cidr": "10.0.0.0/8", "cni-chaining-mode": "generic-veth"}));
    coordinator(&bench, &json!({"podCIDRType": "auto"}));
    let controller = controller(&bench).await;
    until_pods(&bench, "Calico's pool", &["10.244.0.0/16"]).await;
    let reason = status(&bench)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("cni-chaining-mode is generic-veth"), "{reason}");
    controller.stop().unwrap();
    delete("crd/ippools.crd.projectcalico.org");
    plane.kubectl(&["-n", "kube-system", "delete", "configmap", "cilium-config"]).unwrap();
}

/// The API server answers 503 for an extension whose server is away.
#[tokio::test(flavor = "multi_thread")]
async fn calicos_api_server_that_is_away_does_not_stop_the_status() {
    if !long_form::asked_for_or_skip("calicos_api_server_that_is_away_does_not_stop_the_status") {
        return;
    }
    let _networks = networks().await;
    let bench = Bench::new("extension").await;
    let plane = ControlPlane::shared();
    define(&bench, CALICO_3_26).await;
    let service = json!({"namespace": "calico-apiserver", "name": "calico-api"});
    let spec = json!({"group": "projectcalico.org", "version": "v3", "groupPriorityMinimum": 1500,
        "versionPriority": 200, "insecureSkipTLSVerify": true, "service": service});
    let extension = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v3.projectcalico.org"}, "spec": spec});
    plane.apply(&extension.to_string()).unwrap();
    bench
        .until("requests to the extension are answered with 503", async || {
            let answer = plane.kubectl(&["get", "--raw", "/apis/projectcalico.org/v3/ippools"]);
            answer.is_err_and(|error| format!("{error:#}").contains("navailable"))
        })
        .await;
    coordinator(&bench, &json!({"podCIDRType": "auto"}));
    let controller = controller(&bench).await;
    bench
        .until("there may be pools that only its API server shows", async || {
            reason_has(&bench, &["cannot read Calico's IPPools"])
        })
        .await;
    plane.apply(&ip_pool("v1", "a", &json!({"cidr": "10.244.0.0/16"}))).unwrap();
    until_pods(&bench, "the pools of the definition", &["10.244.0.0/16"]).await;
    plane.apply(&ip_pool("v1", "b", &json!({"cidr": "10.245.0.0/16"}))).unwrap();
    until_pods(&bench, "a change is followed", &["10.244.0.0/16", "10.245.0.0/16"]).await;
    controller.stop().unwrap();
    delete("apiservice/v3.projectcalico.org");
    delete("crd/ippools.crd.projectcalico.org");
}

/// A source that may not be read is no source that is not there, and counts as soon as it may be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_and_its_return_is_noticed() {
    let _networks = networks().await;
    let bench = Bench::new("rights").await;
    let plane = ControlPlane::shared();
    coordinator(&bench, &json!({"podCIDRType": "none"}));
    let controller = controller(&bench).await;
    let role = plane.kubectl(&["get", "clusterrole", "spiderpool-controller", "-o", "json"]).unwrap();
    let mut role = serde_json::from_str::<Value>(&role).unwrap();
    role["metadata"] = json!({"name": "spiderpool-controller"});
    let mut without = role.clone();
    without["rules"]
        .as_array_mut()
        .unwrap()
        .retain(|rule| !rule["resources"].to_string().contains("ippools\"]"));
    assert_ne!(without, role);
    plane.kubectl_with_input(&["replace", "-f", "-"], &without.to_string()).unwrap();
    define(&bench, CALICO_3_26).await;
    plane.apply(&ip_pool("v1", "a", &json!({"cidr": "10.244.0.0/16"}))).unwrap();
    bench
        .until("the right is missing", async || {
            // Again and again: the API server may not have seen the role yet.
            coordinator(&bench, &json!({"podCIDRType": "none"}));
            coordinator(&bench, &json!({"podCIDRType": "calico"}));
            reason_has(&bench, &["cannot be read", "forbidden"])
        })
        .await;
    plane.kubectl_with_input(&["replace", "-f", "-"], &role.to_string()).unwrap();
    until_pods(&bench, "the right is back", &["10.244.0.0/16"]).await;
    plane.kubectl_with_input(&["replace", "-f", "-"], &without.to_string()).unwrap();
    coordinator(&bench, &json!({"podCIDRType": "auto"}));
    bench
        .until("the right is missing again, and the CIDRs stay", async || {
            // Again and again: the API server may not have seen the role yet.
            plane
                .apply(&ip_pool("v1", "a", &json!({"cidr": "10.244.0.0/16", "natOutgoing": false})))
                .unwrap();
            plane.apply(&ip_pool("v1", "a", &json!({"cidr": "10.244.0.0/16", "natOutgoing": true}))).unwrap();
            let status = status(&bench);
            let reason = status["reason"].as_str().unwrap_or_default();
            status["phase"] == "Synced"
                && status["overlayPodCIDR"] == json!(["10.244.0.0/16"])
                && reason.contains("forbidden")
                && reason.contains("known before are kept")
        })
        .await;
    plane.kubectl_with_input(&["replace", "-f", "-"], &role.to_string()).unwrap();
    controller.stop().unwrap();
    delete("crd/ippools.crd.projectcalico.org");
}

/// Upstream's coordinator carries a finalizer that nobody removes.
#[tokio::test(flavor = "multi_thread")]
async fn the_finalizer_of_a_deleted_coordinator_is_removed() {
    let _networks = networks().await;
    let bench = Bench::new("finalizer").await;
    coordinator(&bench, &json!({}));
    let controller = controller(&bench).await;
    let (plane, name) = (ControlPlane::shared(), bench.name("scc"));
    let finalizer = r#"{"metadata": {"finalizers": ["spiderpool.spidernet.io"]}}"#;
    plane.kubectl(&["patch", "spidercoordinator", &name, "--type=merge", "-p", finalizer]).unwrap();
    plane.kubectl(&["delete", "spidercoordinator", &name, "--timeout=20s"]).unwrap();
    controller.stop().unwrap();
}
