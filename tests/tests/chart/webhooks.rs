//! The webhooks' configurations: who waits for a controller, and whom the API server trusts.

use serde_json::{Value, json};

use crate::render::{find, objects};

const NAME: &str = "spiderpool-controller";
const KINDS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];

fn webhooks(objects: &[Value]) -> Vec<Value> {
    let of_kind = |kind| find(objects, kind, NAME)["webhooks"].as_array().unwrap().clone();
    KINDS.into_iter().flat_map(of_kind).collect()
}

#[test]
fn a_controller_that_is_away_holds_up_nothing_but_changed_specs_of_our_kinds() {
    for webhook in webhooks(&objects(&[])) {
        for rule in webhook["rules"].as_array().unwrap() {
            assert_eq!(rule["apiGroups"], json!(["spiderpool.spidernet.io"]), "{webhook}");
            assert_eq!(rule["operations"], json!(["CREATE", "UPDATE"]), "{webhook}");
            let resource = rule["resources"][0].as_str().unwrap();
            // Statuses are others: "spiderippools/status".
            let scopes = [
                ("spiderippools", "Cluster"),
                ("spidersubnets", "Cluster"),
                ("spiderreservedips", "Cluster"),
                ("spidercoordinators", "Cluster"),
                ("spidermultusconfigs", "Namespaced"),
            ];
            assert!(scopes.contains(&(resource, rule["scope"].as_str().unwrap())), "{webhook}");
        }
        assert!(webhook["timeoutSeconds"].as_i64().unwrap() <= 5, "{webhook}");
        assert_eq!(webhook["matchConditions"][0]["name"], "spec-changes", "{webhook}");
    }
}

/// An upgrade would take away what the leader has written.
#[test]
fn neither_ca_bundle_nor_certificate_is_in_the_release() {
    let objects = objects(&[]);
    for webhook in webhooks(&objects) {
        assert_eq!(webhook["clientConfig"]["caBundle"], Value::Null);
        assert_eq!(webhook["clientConfig"]["service"]["port"], 5722);
    }
    let secret = find(&objects, "Secret", "spiderpool-controller-server-certs");
    assert_eq!((&secret["data"], &secret["stringData"]), (&Value::Null, &Value::Null));
}

/// The controllers may not write it then.
#[test]
fn the_ca_of_a_certificate_of_the_values_is_trusted() {
    let tls = "spiderpoolController.tls";
    let provided = ["tlsCert", "tlsKey", "tlsCa"].map(|key| format!("{tls}.provided.{key}=QUJD"));
    let objects = objects(&[&format!("--set={tls}.method=provided,{}", provided.join(","))]);
    for webhook in webhooks(&objects) {
        assert_eq!(webhook["clientConfig"]["caBundle"], "QUJD");
    }
}

#[test]
fn deletions_are_asked_for_only_where_they_may_be_refused() {
    let value = "--set=spiderpoolController.enableValidatingResourcesDeletedWebhook=true";
    let webhooks = webhooks(&objects(&[value]));
    let deletes = |webhook: &&Value| webhook["rules"].to_string().contains("DELETE");
    let deleting = webhooks.iter().filter(deletes);
    let names: Vec<_> = deleting.map(|webhook| webhook["clientConfig"]["service"]["path"].clone()).collect();
    let paths =
        ["ippool", "subnet"].map(|kind| format!("/validate-spiderpool-spidernet-io-v2beta1-spider{kind}"));
    assert_eq!(names, paths);
}

#[test]
fn a_kind_without_a_controller_has_no_webhook() {
    for (value, kind) in [
        ("coordinator.enabled=false", "spidercoordinator"),
        ("multus.enableMultusConfig=false", "spidermultusconfig"),
    ] {
        let webhooks = webhooks(&objects(&[&format!("--set={value}")]));
        assert!(!webhooks.iter().any(|webhook| webhook.to_string().contains(kind)), "{value}");
    }
}

fn pod_webhook(values: &[&str]) -> Option<Value> {
    let webhooks = webhooks(&objects(values));
    webhooks.into_iter().find(|webhook| webhook["name"] == "pod.spiderpool.spidernet.io")
}

#[test]
fn pods_wait_for_a_controller_only_where_they_may_get_networks_from_it() {
    assert_eq!(pod_webhook(&[]), None);
    let enabled = "--set=spiderpoolController.podResourceInject.enabled=true";
    let webhook = pod_webhook(&[enabled]).unwrap();
    assert_eq!(webhook["clientConfig"]["service"]["path"], "/mutate--v1-pod");
    assert_eq!(
        webhook["rules"],
        json!([{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"], "scope": "Namespaced",
        }])
    );
    let excluded = ["kube-system", "spiderpool", "metallb-system", "istio-system"];
    let is_not_in = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded});
    assert_eq!(webhook["namespaceSelector"]["matchExpressions"], json!([is_not_in]));

    let inject = "spiderpoolController.podResourceInject";
    let webhook = pod_webhook(&[
        enabled,
        &format!("--set={inject}.namespacesExclude={{a}},{inject}.namespacesInclude={{b,c}}"),
    ]);
    // The controllers' own pods never wait for them, nor does what the cluster needs to start others.
    let excluded = ["a", "kube-system", "spiderpool"];
    let is_not_in = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": excluded});
    let is_in = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["b", "c"]});
    assert_eq!(webhook.unwrap()["namespaceSelector"]["matchExpressions"], json!([is_not_in, is_in]));
}

#[test]
fn cert_manager_names_the_ca_and_makes_the_certificate() {
    let objects = objects(&[
        "--set=spiderpoolController.tls.method=certmanager,spiderpoolController.tls.certmanager.issuerName=ca",
        "--set=global.clusterDnsDomain=cluster.test",
    ]);
    let annotation =
        &find(&objects, KINDS[0], NAME)["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
    assert_eq!(annotation, "spiderpool/spiderpool-controller-server-certs");
    let certificate = find(&objects, "Certificate", "spiderpool-controller-server-certs");
    assert_eq!(
        certificate["spec"]["dnsNames"],
        json!([
            "spiderpool-controller.spiderpool",
            "spiderpool-controller.spiderpool.svc",
            "spiderpool-controller.spiderpool.svc.cluster.test",
        ])
    );
    assert!(!objects.iter().any(|object| object["kind"] == "Secret"));
}
