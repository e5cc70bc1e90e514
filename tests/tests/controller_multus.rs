//! Of a SpiderMultusConfig a NetworkAttachmentDefinition is made and kept as it should be; others' are left alone.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use spiderpool_tests::control_plane::{ControlPlane, Options};
use spiderpool_tests::standalone_controller::{StandaloneController, Start};
use support::Bench;

/// The CRD of NetworkAttachmentDefinition.
const MULTUS: &str =
    include_str!("../../charts/spiderpool/crds/k8s.cni.cncf.io_network-attachment-definitions.yaml");
/// For the seed's macvlan.
const CONFIG: &str = r#"{"cniVersion":"0.3.1","name":"NAME","plugins":[{"type":"macvlan","master":"ens192","mode":"bridge","mtu":0,"ipam":{"type":"spiderpool","default_ipv4_ippool":["10-6-v4"]}},{"txQueueLen":0,"tunePodRoutes":true,"mode":"auto","type":"coordinator"}]}"#;

const CRD: &str = "crd/network-attachment-definitions.k8s.cni.cncf.io";

fn install_multus(plane: &ControlPlane) {
    plane.apply(MULTUS).unwrap();
    plane.kubectl(&["wait", "--for=condition=Established", "--timeout=20s", CRD]).unwrap();
}

async fn controller(bench: &Bench<'_>, plane: &ControlPlane) -> StandaloneController {
    let folder = bench.folder("controllers");
    let environment =
        [("SPIDERPOOL_MULTUS_CONFIG_ENABLED", "true"), ("SPIDERPOOL_COORDINATOR_ENABLED", "false")];
    let start = Start { folder: &folder, namespace: bench.namespace(), name: "a", environment: &environment };
    StandaloneController::start(plane, start).await.unwrap()
}

fn network(bench: &Bench<'_>, name: &str, annotations: &Value, spec: &Value) {
    bench.apply(&json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
        "metadata": {"namespace": bench.namespace(), "name": name, "annotations": annotations}, "spec": spec,
    }));
}

fn macvlan() -> Value {
    json!({"cniType": "macvlan", "macvlan": {"master": ["ens192"], "ippools": {"ipv4": ["10-6-v4"]}, "vlanID": 0}})
}

/// Objects of the test's namespace, by kubectl.
struct Kubectl<'a>(&'a ControlPlane, &'a str);

impl Kubectl<'_> {
    fn run(&self, arguments: &[&str]) -> String {
        self.0.kubectl(&[arguments, &["-n", self.1]].concat()).unwrap()
    }

    fn find(&self, kind: &str, name: &str) -> Option<Value> {
        let text = self.run(&["get", kind, name, "--ignore-not-found", "-o", "json"]);
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).unwrap())
    }

    fn patch(&self, kind: &str, name: &str, patch: &Value) {
        self.run(&["patch", kind, name, "--type=merge", "-p", &patch.to_string()]);
    }

    fn has_config(&self, name: &str) -> bool {
        let found = self.find("net-attach-def", name);
        found.is_some_and(|found| found["spec"]["config"] == CONFIG.replace("NAME", name))
    }

    /// Whether an Event on the SpiderMultusConfig says so.
    fn has_event(&self, name: &str, reason: &str, part: &str) -> bool {
        let of = format!("regarding.name={name}");
        let text = self.run(&["get", "events.events.k8s.io", "--field-selector", &of, "-o", "json"]);
        let events: Value = serde_json::from_str(&text).unwrap();
        let events = events["items"].as_array().unwrap().clone();
        events.iter().any(|event| {
            event["reason"] == reason && event["note"].as_str().is_some_and(|note| note.contains(part))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_become_attachments_and_stay_as_they_should_be() {
    let bench = Bench::new("networks").await;
    let plane = ControlPlane::shared();
    install_multus(plane);
    let kubectl = Kubectl(plane, bench.namespace());
    network(&bench, "seed", &json!({"team": "a"}), &macvlan());
    let controller = controller(&bench, plane).await;
    bench.until("it is created", async || kubectl.has_config("seed")).await;
    check_created(&kubectl);
    check_drift(&bench, &kubectl).await;
    check_others(&bench, &kubectl).await;
    check_names(&bench, &kubectl).await;
    check_invalid(&bench, &kubectl).await;
    controller.stop().unwrap();
}

fn check_created(kubectl: &Kubectl<'_>) {
    let (network, made) =
        (kubectl.find("smc", "seed").unwrap(), kubectl.find("net-attach-def", "seed").unwrap());
    let owner = json!([{
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig", "name": "seed",
        "uid": network["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }]);
    assert_eq!(made["metadata"]["ownerReferences"], owner);
    assert_eq!(made["metadata"]["annotations"]["team"], "a");
    let remembered = &made["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(*remembered, Value::Null, "kubectl has not applied this one");
}

/// Upstream repairs at its next resync, and wipes what others have annotated.
async fn check_drift(bench: &Bench<'_>, kubectl: &Kubectl<'_>) {
    let drift = json!({
        "metadata": {"annotations": {"foreign": "x", "team": "b"}, "ownerReferences": null},
        "spec": {"config": "{}"},
    });
    kubectl.patch("net-attach-def", "seed", &drift);
    bench
        .until("drift is repaired and a foreign annotation kept", async || {
            let found = kubectl.find("net-attach-def", "seed").unwrap();
            let meta = &found["metadata"];
            kubectl.has_config("seed")
                && meta["annotations"]["team"] == "a"
                && meta["annotations"]["foreign"] == "x"
                && meta["ownerReferences"][0]["kind"] == "SpiderMultusConfig"
        })
        .await;
    kubectl.run(&["delete", "net-attach-def", "seed"]);
    bench.until("what was deleted comes again", async || kubectl.has_config("seed")).await;
    // While it is being deleted, there is nothing to write.
    kubectl.patch("net-attach-def", "seed", &json!({"metadata": {"finalizers": ["test/hold"]}}));
    kubectl.run(&["delete", "net-attach-def", "seed", "--wait=false"]);
    let terminating = kubectl.find("net-attach-def", "seed").unwrap()["metadata"]["uid"].clone();
    kubectl.patch("net-attach-def", "seed", &json!({"metadata": {"finalizers": null}}));
    bench
        .until("it is made again after a slow deletion", async || {
            let found = kubectl.find("net-attach-def", "seed");
            found.is_some_and(|found| found["metadata"]["uid"] != terminating) && kubectl.has_config("seed")
        })
        .await;
    network(bench, "seed", &json!({}), &json!({"cniType": "macvlan", "macvlan": {"master": ["ens224"]}}));
    bench
        .until("a change is followed", async || {
            let found = kubectl.find("net-attach-def", "seed").unwrap();
            found["spec"]["config"].as_str().is_some_and(|config| config.contains("ens224"))
                && found["metadata"]["annotations"]["team"] == Value::Null
        })
        .await;
}

/// Upstream takes over what nobody owns.
async fn check_others(bench: &Bench<'_>, kubectl: &Kubectl<'_>) {
    bench.apply(&json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"namespace": bench.namespace(), "name": "by-hand"}, "spec": {"config": "{\"by\": \"hand\"}"},
    }));
    network(bench, "by-hand", &json!({}), &macvlan());
    bench
        .until("an Event names it and says that it is nobody's", async || {
            kubectl.has_event(
                "by-hand",
                "NameTaken",
                "/by-hand already exists and is managed by no SpiderMultusConfig",
            )
        })
        .await;
    assert_eq!(kubectl.find("net-attach-def", "by-hand").unwrap()["spec"]["config"], "{\"by\": \"hand\"}");
    kubectl.run(&["delete", "net-attach-def", "by-hand"]);
    bench.until("it is made when the other is gone", async || kubectl.has_config("by-hand")).await;
    network(bench, "thief", &json!({"multus.spidernet.io/cr-name": "by-hand"}), &macvlan());
    bench
        .until("an Event names the owner", async || {
            let owner = format!("managed by SpiderMultusConfig {}/by-hand.", kubectl.1);
            kubectl.has_event("thief", "NameTaken", &owner)
        })
        .await;
}

async fn check_names(bench: &Bench<'_>, kubectl: &Kubectl<'_>) {
    let named =
        |name: &str| json!({"multus.spidernet.io/cr-name": name, "multus.spidernet.io/cni-version": "0.3.1"});
    network(bench, "renamed", &named("old-name"), &macvlan());
    bench.until("it has the name that the annotation says", async || kubectl.has_config("old-name")).await;
    // As a user makes a network of his own from ours: by its YAML and another name.
    let mut copy = kubectl.find("net-attach-def", "old-name").unwrap();
    copy["metadata"]["name"] = json!("copy");
    for of_the_server in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        copy["metadata"].as_object_mut().unwrap().remove(of_the_server);
    }
    bench.apply(&copy);
    network(bench, "renamed", &named("new-name"), &macvlan());
    bench
        .until("the former one goes", async || {
            kubectl.has_config("new-name") && kubectl.find("net-attach-def", "old-name").is_none()
        })
        .await;
    assert!(kubectl.find("net-attach-def", "copy").is_some(), "it is not ours to delete");
    let custom = json!({"cniType": "custom", "customCNI": "{\"type\": \"bridge\"}"});
    network(bench, "custom", &json!({}), &custom);
    bench
        .until("a custom configuration is copied", async || {
            let found = kubectl.find("net-attach-def", "custom");
            found.is_some_and(|found| found["spec"]["config"] == custom["customCNI"])
        })
        .await;
}

async fn check_invalid(bench: &Bench<'_>, kubectl: &Kubectl<'_>) {
    let bonded = |options: &str| {
        let bond = json!({"name": "bond0", "mode": 1, "options": options});
        json!({"cniType": "macvlan", "macvlan": {"master": ["ens192", "ens224"], "vlanID": 100, "bond": bond}})
    };
    network(bench, "tagged", &json!({}), &bonded("speed=1"));
    bench
        .until("an Event names the field and what is wrong with it", async || {
            kubectl.has_event("tagged", "InvalidSpec", "spec.macvlan.bond.options: Invalid value: ")
        })
        .await;
    assert!(kubectl.find("net-attach-def", "tagged").is_none());
    network(bench, "tagged", &json!({}), &bonded("miimon=100"));
    let ifacer = r#"{"vlanID":100,"type":"ifacer","interfaces":["ens192","ens224"],"bond":{"name":"bond0","mode":1,"options":"miimon=100"}}"#;
    bench
        .until("its interfaces are made by a plugin", async || {
            let found = kubectl.find("net-attach-def", "tagged");
            found.is_some_and(|found| found["spec"]["config"].as_str().unwrap().contains(ifacer))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_wait_for_multus() {
    let plane = ControlPlane::start(Options::default()).unwrap();
    // The chart brings it; others may not.
    plane.kubectl(&["delete", "--wait", CRD]).unwrap();
    let bench = Bench::on(&plane, "before-multus").await;
    let kubectl = Kubectl(&plane, bench.namespace());
    let controller = controller(&bench, &plane).await;
    network(&bench, "early", &json!({}), &macvlan());
    bench
        .until("an Event says what is missing", async || {
            kubectl.has_event("early", "MultusNotInstalled", "install Multus")
        })
        .await;
    install_multus(&plane);
    bench.until("it is made when Multus is there", async || kubectl.has_config("early")).await;
    controller.stop().unwrap();
}
