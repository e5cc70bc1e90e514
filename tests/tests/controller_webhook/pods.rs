//! Pods that ask for networks by an annotation.

use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Kind};
use spiderpool_tests::standalone_controller::{LABEL, StandaloneController};

use crate::hooks::{Hooks, MULTUS};

const RDMA: &str = "cni.spidernet.io/rdma-resource-inject";
const NETWORK: &str = "cni.spidernet.io/network-resource-inject";
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// A pod of the test's namespace, which its webhook is called for.
fn pod(hooks: &Hooks<'_>, name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": hooks.bench.namespace(), "name": name, "labels": {LABEL: hooks.name},
            "annotations": annotations,
        },
        "spec": {"containers": [{"name": "a", "image": "none"}, {"name": "b", "image": "none"}]},
    })
}

fn macvlan(master: &str, resource: &str) -> Value {
    json!({"cniType": "macvlan", "macvlan": {
        "master": [master], "rdmaResourceName": resource, "ippools": {"ipv4": ["p"]},
    }})
}

/// The networks of a stored pod, and the resources that its containers ask for.
fn given(pod: &Value) -> (Value, [Value; 2]) {
    let containers = &pod["spec"]["containers"];
    let requests =
        [0, 1].map(|index| containers[index]["resources"].get("requests").cloned().unwrap_or_default());
    (pod["metadata"]["annotations"][NETWORKS].clone(), requests)
}

/// A controller that serves pods, and the chart's configurations with the webhook for them.
async fn start<'a>(prefix: &str) -> (Hooks<'a>, StandaloneController) {
    ControlPlane::shared().apply(MULTUS).unwrap();
    let hooks = Hooks::new(prefix).await;
    let controller =
        hooks.controller_with("a", hooks.port, &[], &json!({"podResourceInject": {"enabled": true}})).await;
    hooks.configure_values(&["spiderpoolController.podResourceInject.enabled=true"]);
    hooks.wait_until_called().await;
    (hooks, controller)
}

/// Upstream's case H00001.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_all_networks_of_its_annotation_and_a_unit_of_each_resource() {
    let (hooks, _controller) = start("hook-pods").await;
    let marks = json!({RDMA: "macvlan-rdma"});
    Hooks::write(&hooks.network("nad2", &marks, &macvlan("ens2", "spidernet.io/second"))).unwrap();
    Hooks::write(&hooks.network("nad1", &marks, &macvlan("ens1", "spidernet.io/first"))).unwrap();
    Hooks::write(&hooks.network("other", &json!({RDMA: "x"}), &macvlan("ens1", "spidernet.io/x"))).unwrap();

    let written = Hooks::write(&pod(&hooks, "a", &marks)).unwrap();
    let resources = json!({"spidernet.io/first": "1", "spidernet.io/second": "1"});
    assert_eq!(given(&written), (json!("hook-pods/nad1,hook-pods/nad2"), [resources.clone(), Value::Null]));
    assert_eq!(written["spec"]["containers"][0]["resources"]["limits"], resources);

    // What a container asks for already is not asked for again.
    let mut asks = pod(&hooks, "b", &marks);
    asks["spec"]["containers"][1]["resources"] = json!({"limits": {"spidernet.io/second": "3"}});
    let written = Hooks::write(&asks).unwrap();
    let wanted = [json!({"spidernet.io/first": "1"}), json!({"spidernet.io/second": "3"})];
    assert_eq!(given(&written).1, wanted);

    // A pod that asks for nothing, and one of the node's own network, stay as they are.
    let written = Hooks::write(&pod(&hooks, "c", &json!({}))).unwrap();
    assert_eq!(given(&written), (Value::Null, [Value::Null, Value::Null]));
    let mut host = pod(&hooks, "d", &marks);
    host["spec"]["hostNetwork"] = json!(true);
    assert_eq!(given(&Hooks::write(&host).unwrap()), (Value::Null, [Value::Null, Value::Null]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_asks_for_its_pods_and_a_network_of_another_name_is_meant() {
    let (hooks, _controller) = start("hook-pod-ns").await;
    let marks = json!({NETWORK: "web", "multus.spidernet.io/cr-name": "attachment"});
    let spec = json!({"cniType": "ipvlan", "ipvlan": {"master": ["ens1"]}});
    Hooks::write(&hooks.network("n", &marks, &spec)).unwrap();
    hooks.bench.annotate_namespace(NETWORK, "web");
    hooks
        .bench
        .until("the namespace's annotation counts", async || {
            let arguments =
                ["delete", "pod", "-n", hooks.bench.namespace(), "a", "--ignore-not-found", "--force"];
            ControlPlane::shared().kubectl(&arguments).unwrap();
            let written = Hooks::write(&pod(&hooks, "a", &json!({}))).unwrap();
            given(&written) == (json!("hook-pod-ns/attachment"), [Value::Null, Value::Null])
        })
        .await;
    // What the pod names itself is replaced, as upstream does it.
    let written = Hooks::write(&pod(&hooks, "b", &json!({NETWORKS: "mine"}))).unwrap();
    assert_eq!(given(&written).0, "hook-pod-ns/attachment");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_networks_are_wrong_is_refused_with_all_faults() {
    let (hooks, _controller) = start("hook-pod-bad").await;
    let error = Hooks::write(&pod(&hooks, "a", &json!({RDMA: "none"}))).unwrap_err();
    for part in [
        "The Pod \"a\" is invalid",
        "metadata.annotations[cni.spidernet.io/rdma-resource-inject]: Invalid value: \"none\"",
        "no spidermultusconfigs with annotation: cni.spidernet.io/rdma-resource-inject: none",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
    assert_eq!(ControlPlane::shared().find(Kind("v1", "Pod"), hooks.bench.namespace(), "a").unwrap(), None);
    // Labels select networks too, which no webhook has checked then.
    for (name, spec) in [
        ("custom", json!({"cniType": "custom", "enableCoordinator": false, "customCNI": "{}"})),
        ("no-resource", json!({"cniType": "macvlan", "macvlan": {"master": ["ens1"]}})),
    ] {
        hooks.bench.apply(&json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
            "metadata": {"namespace": hooks.bench.namespace(), "name": name, "labels": {RDMA: "bad"}},
            "spec": spec,
        }));
    }
    let error = Hooks::write(&pod(&hooks, "b", &json!({RDMA: "bad"}))).unwrap_err();
    for part in [
        "SpiderMultusConfig hook-pod-bad/custom: networks of cniType custom are not injected",
        "SpiderMultusConfig hook-pod-bad/no-resource: the network needs the name of an RDMA resource",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}
