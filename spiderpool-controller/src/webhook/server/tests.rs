use axum::body::Body;
use axum::http::Request as HttpRequest;
use base64::Engine as _;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::client::Body as KubeBody;
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};
use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_core::admission::Families;
use spiderpool_core::multus::INJECTION_KEYS;
use spiderpool_runtime::http::Limits;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::pools::PoolObject;
use spiderpool_runtime::watch::{Index as _, Shared};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::ServiceExt as _;

use super::*;
use crate::webhook::body::MAX_BODY;
use crate::webhook::in_use::AddressesInUse;
use crate::webhook::ip_pool::PoolValidator;
use crate::webhook::known::{KnownNamespace, KnownNetwork, KnownObjects, KnownPool, KnownSubnet};
use crate::webhook::multus_config::NetworkValidator;
use crate::webhook::pod::PodInjector;
use crate::webhook::stored_subnet::StoredSubnets;
use crate::webhook::subnet::SubnetValidator;

/// A router whose API server never answers.
fn router() -> (Router, Shared<KnownObjects>) {
    let hangs = tower::service_fn(|_: HttpRequest<KubeBody>| {
        std::future::pending::<Result<axum::http::Response<KubeBody>, std::io::Error>>()
    });
    router_by(kube::Client::new(hangs, "default"))
}

/// A router whose API server has nothing.
fn router_of_nothing() -> (Router, Shared<KnownObjects>) {
    let nothing = tower::service_fn(async |_: HttpRequest<KubeBody>| {
        let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
        let response =
            axum::http::Response::builder().status(404).body(KubeBody::from(status.to_string().into_bytes()));
        response.map_err(std::io::Error::other)
    });
    router_by(kube::Client::new(nothing, "default"))
}

fn router_by(client: kube::Client) -> (Router, Shared<KnownObjects>) {
    let known = Shared::<KnownObjects>::default();
    let kube = Kubernetes::new(client);
    let networks = NetworkValidator::new(kube.clone(), known.clone());
    let families = Families { v4: true, v6: true };
    let subnets = SubnetValidator { known: known.clone(), families, enabled: true, guards_deletion: true };
    let pools = PoolValidator {
        subnets: Some(StoredSubnets::new(kube.clone())),
        in_use: AddressesInUse::new(kube.clone()),
        known: known.clone(),
        families,
        guards_deletion: true,
    };
    let pods = Some(PodInjector::new(kube, known.clone()));
    (super::router(Validators { pools, subnets, networks, pods }), known)
}

fn pool(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
        "metadata": {"name": name, "uid": "u", "creationTimestamp": null}, "spec": spec,
    })
}

fn review(kind: &str, operation: &str, object: &Value, old: &Value) -> String {
    let gvk = json!({"group": "spiderpool.spidernet.io", "version": "v2beta1", "kind": kind});
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "1", "kind": gvk, "name": "p", "operation": operation, "userInfo": {"username": "u"},
            "resource": {"group": "spiderpool.spidernet.io", "version": "v2beta1", "resource": "r"},
            "object": object, "oldObject": old, "dryRun": false,
        },
    })
    .to_string()
}

async fn ask(router: &Router, path: &str, body: String) -> (StatusCode, Value) {
    let request = HttpRequest::post(path).body(Body::from(body)).unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

const MUTATE: &str = "/mutate-spiderpool-spidernet-io-v2beta1-spiderippool";
const VALIDATE: &str = "/validate-spiderpool-spidernet-io-v2beta1-spiderippool";

#[tokio::test]
async fn a_mutation_is_a_patch_of_exactly_what_changes() {
    let (router, _) = router();
    let new = pool("p", &json!({"subnet": "10.6.0.0/16", "ips": ["10.6.0.1"]}));
    let (_, answer) = ask(&router, MUTATE, review("SpiderIPPool", "CREATE", &new, &Value::Null)).await;
    let response = &answer["response"];
    assert_eq!(
        (&response["uid"], &response["allowed"], &response["patchType"]),
        (&json!("1"), &json!(true), &json!("JSONPatch"))
    );
    let bytes = response["patch"].as_str().map_or_else(
        || serde_json::from_value::<Vec<u8>>(response["patch"].clone()).unwrap(),
        |text| base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
    );
    let patch: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        patch,
        json!([
            {"op": "add", "path": "/metadata/labels", "value": {"ipam.spidernet.io/ippool-cidr": "10-6-0-0-16"}},
            {"op": "add", "path": "/spec/ipVersion", "value": 4},
        ])
    );
}

#[tokio::test]
async fn all_faults_are_in_one_answer_as_kubernetes_words_them() {
    let (router, known) = router();
    let other = pool("other", &json!({"subnet": "10.6.0.0/16", "ips": ["10.6.0.1"]}));
    let other: PoolObject = serde_json::from_value(other).unwrap();
    known.write(|known| known.apply(KnownPool::from(other)));
    let new = pool("p", &json!({"subnet": "10.6.0.0/16", "ips": ["10.6.0.1"], "gateway": "10.7.0.1"}));
    let (status, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "CREATE", &new, &Value::Null)).await;
    assert_eq!(status, StatusCode::OK);
    let refused = &answer["response"]["status"];
    assert_eq!((&refused["code"], &refused["reason"]), (&json!(422), &json!("Invalid")));
    assert_eq!(
        refused["message"],
        "SpiderIPPool.spiderpool.spidernet.io \"p\" is invalid: [spec.gateway: Invalid value: \"10.7.0.1\": 10.7.0.1 is not \
         an address of spec.subnet 10.6.0.0/16, spec.ips: Forbidden: overlap with IPPool other in IP ranges [10.6.0.1]]"
    );
    let causes = refused["details"]["causes"].as_array().unwrap();
    assert_eq!(causes.len(), 2);
    assert_eq!(
        (&causes[1]["field"], &causes[1]["reason"]),
        (&json!("spec.ips"), &json!("FieldValueForbidden"))
    );
}

#[tokio::test]
async fn what_leaves_the_spec_as_it_is_passes_whatever_is_wrong_with_it() {
    let (router, _) = router();
    let old = pool("p", &json!({"subnet": "10.6.1.0/16"}));
    let mut new = pool("p", &json!({"subnet": "10.6.1.0/16", "ipVersion": 4}));
    new["metadata"]["finalizers"] = json!(["spiderpool.spidernet.io"]);
    let (_, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "UPDATE", &new, &old)).await;
    assert_eq!(answer["response"]["allowed"], true);
    let changed = pool("p", &json!({"subnet": "10.6.2.0/16"}));
    let (_, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "UPDATE", &changed, &old)).await;
    assert_eq!(answer["response"]["allowed"], false);
    let wrong_version = pool("p", &json!({"subnet": "10.6.1.0/16", "ipVersion": 6}));
    let (_, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "UPDATE", &wrong_version, &old)).await;
    assert_eq!(answer["response"]["allowed"], false, "it is not what the leader fills in");
}

#[tokio::test]
async fn a_terminating_pool_is_changed_only_by_taking_our_finalizer() {
    let (router, _) = router();
    let old = pool("p", &json!({"subnet": "10.6.0.0/16"}));
    let mut new = pool("p", &json!({"subnet": "10.6.0.0/16", "disable": true}));
    new["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    new["metadata"]["finalizers"] = json!(["spiderpool.spidernet.io"]);
    let (_, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "UPDATE", &new, &old)).await;
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.ends_with("spec: Forbidden: cannot update a terminating IPPool"), "{message}");
    new["metadata"]["finalizers"] = json!([]);
    let (_, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "UPDATE", &new, &old)).await;
    assert_eq!(answer["response"]["allowed"], true);
}

/// An API server that has the pool `p`, and of its addresses one in use.
fn api_server_of_p(request: &HttpRequest<KubeBody>) -> Value {
    if request.uri().path().ends_with("/spiderippools/p") {
        return pool("p", &json!({"subnet": "10.6.0.0/16"}));
    }
    let selector = "labelSelector=ipam.spidernet.io%2Fippool%3Dp";
    let is_of_p = request.uri().query().is_some_and(|query| query.contains(selector));
    let address = json!({
        "metadata": {"name": "10.6.0.7"},
        "spec": {"address": "10.6.0.7/16", "pool": "p", "node": "n", "interface": "net1", "podNamespace": "secret",
            "podName": "secret", "podUID": "u", "state": "bound"},
    });
    let items = if is_of_p { vec![address] } else { vec![] };
    json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
}

fn router_of_p() -> Router {
    let service = tower::service_fn(async |request: HttpRequest<KubeBody>| {
        let body = KubeBody::from(api_server_of_p(&request).to_string().into_bytes());
        Ok::<_, std::io::Error>(axum::http::Response::new(body))
    });
    router_by(kube::Client::new(service, "default")).0
}

/// Such a review has no name.
#[tokio::test]
async fn a_deletion_of_all_pools_does_not_pass_the_guard() {
    let router = router_of_p();
    let old = pool("p", &json!({"subnet": "10.6.0.0/16"}));
    let mut of_many: Value =
        serde_json::from_str(&review("SpiderIPPool", "DELETE", &Value::Null, &old)).unwrap();
    of_many["request"]["name"] = json!("");
    let (_, answer) = ask(&router, VALIDATE, of_many.to_string()).await;
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.ends_with("cannot delete an IPPool with allocated IPs(1)"), "{message}");
}

/// Whoever reaches the port may send a review.
#[tokio::test]
async fn an_answer_about_addresses_in_use_is_of_what_is_stored_and_names_no_pod() {
    let router = router_of_p();
    let pool = |name: &str, ips: &[&str]| pool(name, &json!({"subnet": "10.6.0.0/16", "ips": ips}));
    let ask = async |new: &Value, old: &Value| {
        ask(&router, VALIDATE, review("SpiderIPPool", "UPDATE", new, old)).await.1["response"].to_string()
    };
    let text = ask(&pool("p", &["10.6.0.1"]), &pool("p", &["10.6.0.1-10.6.0.9"])).await;
    assert!(text.contains("remove an IP address 10.6.0.7 that is being used by a Pod"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    // Its status says so, and the stored pool has none.
    let mut forged = pool("p", &["10.6.0.7-10.6.0.9"]);
    forged["status"] = json!({"allocatedIPs": r#"{"10.6.0.9":{"pod":"a/b"}}"#});
    let text = ask(&pool("p", &["10.6.0.7"]), &forged).await;
    assert!(text.contains(r#""allowed":true"#), "{text}");
}

/// Listing a large pool takes long.
#[tokio::test]
async fn addresses_are_not_listed_for_who_does_not_know_the_uid_of_the_pool() {
    let router = router_of_p();
    let mut forged = pool("p", &json!({"subnet": "10.6.0.0/16"}));
    forged["metadata"]["uid"] = json!("guessed");
    let (_, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "DELETE", &Value::Null, &forged)).await;
    let refused = &answer["response"]["status"];
    assert_eq!(refused["code"], 503);
    assert_eq!(refused["message"], "the stored IPPool of this name is another one, try again");
}

/// As many as had taken all places by the lengths that they declared.
#[tokio::test]
async fn who_declares_a_body_and_sends_none_holds_up_nobody() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, router) = (tokio_util::sync::CancellationToken::new(), router().0);
    tokio::spawn(spiderpool_runtime::http::serve(listener, router.clone(), Limits::WEBHOOK, shutdown));
    let mut silent = Vec::new();
    for length in [[64 << 10; 64].as_slice(), &[MAX_BODY; 3]].concat() {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {VALIDATE} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        silent.push(stream);
    }
    // Bodies of those that have come are being waited for: the server asks for them.
    tokio::time::timeout(Duration::from_secs(1), silent[0].readable()).await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(1), silent[64].readable()).await.unwrap().unwrap();
    for count in [1, 20_000] {
        let ips: Vec<_> = (0..count).map(|n| format!("10.6.{}.{}", n / 250, n % 250)).collect();
        let new = pool("p", &json!({"subnet": "10.6.0.0/16", "ips": ips, "gateway": "10.7.0.1"}));
        let asked = ask(&router, MUTATE, review("SpiderIPPool", "CREATE", &new, &Value::Null));
        let (status, _) = tokio::time::timeout(Duration::from_millis(1500), asked).await.unwrap();
        assert_eq!(status, StatusCode::OK);
    }
}

/// As somebody leaves it who only wants to take the places.
#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    tokio::spawn(spiderpool_runtime::http::serve(listener, router().0, Limits::WEBHOOK, shutdown));
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {VALIDATE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {MAX_BODY}\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn a_large_object_is_reviewed_as_well() {
    let (router, _) = router();
    let ips: Vec<_> = (0..20_000).map(|n| format!("10.6.{}.{}", n / 250, n % 250)).collect();
    let new = pool("p", &json!({"subnet": "10.6.0.0/16", "ips": ips, "gateway": "10.7.0.1"}));
    let (_, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "CREATE", &new, &Value::Null)).await;
    assert_eq!(answer["response"]["status"]["code"], 422);
}

/// Each of an object's ranges may be wrong: there was a line for each, and they were compared with each other.
#[tokio::test]
async fn of_very_many_faults_an_answer_has_the_first_and_their_number() {
    let (router, _) = router();
    let ips: Vec<_> = (0..50_000).map(|n| format!("10.7.{}.{}", n / 250, n % 250)).collect();
    let new = pool("p", &json!({"subnet": "10.6.0.0/16", "ips": ips}));
    let (_, answer) = ask(&router, VALIDATE, review("SpiderIPPool", "CREATE", &new, &Value::Null)).await;
    let status = &answer["response"]["status"];
    let message = status["message"].as_str().unwrap();
    assert!(
        message.contains("spec.ips[0]: Invalid value: \"10.7.0.0\": 10.7.0.0 is not inside of"),
        "{message}"
    );
    assert!(message.ends_with(", and 49980 more]"), "{message}");
    let causes = status["details"]["causes"].as_array().unwrap();
    assert_eq!((causes.len(), &causes[20]["message"]), (21, &json!("and 49980 more faults")));
}

const VALIDATE_NETWORK: &str = "/validate-spiderpool-spidernet-io-v2beta1-spidermultusconfig";

fn network(name: &str, annotations: &Value, spec: &Value) -> Value {
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
        "metadata": {"namespace": "ns", "name": name, "uid": "u", "annotations": annotations}, "spec": spec,
    })
}

#[tokio::test]
async fn all_faults_of_a_network_are_in_one_answer_with_who_has_its_name() {
    let (router, known) = router_of_nothing();
    let other = network("b", &json!({"multus.spidernet.io/cr-name": "net"}), &json!({}));
    let other: SpiderMultusConfig = serde_json::from_value(other).unwrap();
    known.write(|known| known.apply(KnownNetwork::from(other)));
    let spec =
        json!({"cniType": "macvlan", "macvlan": {"master": ["enp3s0f0np0"], "vlanID": 1000}, "ipoib": {}});
    let new = network("net", &Value::Null, &spec);
    let ask = async |new: &Value, operation: &str, old: &Value| {
        let (_, answer) =
            ask(&router, VALIDATE_NETWORK, review("SpiderMultusConfig", operation, new, old)).await;
        answer["response"]["status"]["message"].as_str().unwrap_or_default().to_owned()
    };
    let message = ask(&new, "CREATE", &Value::Null).await;
    for part in [
        "spec.ipoib: Forbidden: cniType is macvlan",
        "spec.macvlan.vlanID: Invalid value: ",
        "metadata.name: Invalid value: \"net\": SpiderMultusConfig ns/b makes the NetworkAttachmentDefinition ns/net",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    let free = network("free", &Value::Null, &json!({"cniType": "macvlan", "macvlan": {"master": ["eth1"]}}));
    assert_eq!(ask(&free, "CREATE", &Value::Null).await, "");
    let mut renamed = free.clone();
    renamed["metadata"]["annotations"] = json!({"multus.spidernet.io/cr-name": "new"});
    let message = ask(&renamed, "UPDATE", &free).await;
    assert!(message.contains("metadata.annotations[multus.spidernet.io/cr-name]: Forbidden"), "{message}");
}

const VALIDATE_SUBNET: &str = "/validate-spiderpool-spidernet-io-v2beta1-spidersubnet";

fn subnet(name: &str, ips: &str, records: &Value) -> Value {
    json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderSubnet",
        "metadata": {"name": name, "uid": "u"},
        "spec": {"subnet": "10.6.0.0/16", "ipVersion": 4, "ips": [ips]},
        "status": {"controlledIPPools": records.to_string()},
    })
}

/// A router whose API server has this subnet, and whose watch has seen another state of it.
fn router_of_subnet(stored: Value, seen: Value) -> Router {
    let service = tower::service_fn(move |_: HttpRequest<KubeBody>| {
        let body = KubeBody::from(stored.to_string().into_bytes());
        std::future::ready(Ok::<_, std::io::Error>(axum::http::Response::new(body)))
    });
    let (router, known) = router_by(kube::Client::new(service, "default"));
    let seen: spiderpool_api::crd::SpiderSubnet = serde_json::from_value(seen).unwrap();
    known.write(|known| known.apply(KnownSubnet::from(seen)));
    router
}

/// The API server's answer to a pool, what the webhook says.
async fn refusal_of(router: &Router, new: &Value, old: &Value) -> String {
    let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
    let (_, answer) = ask(router, VALIDATE, review("SpiderIPPool", operation, new, old)).await;
    answer["response"]["status"]["message"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_pool_is_refused_by_what_is_stored_of_its_subnet_and_not_by_what_a_watch_has_seen() {
    let narrow = subnet("s", "10.6.0.1-10.6.0.9", &json!({}));
    let wide = subnet("s", "10.6.0.1-10.6.0.99", &json!({}));
    let pool = |ips: &[&str]| pool("p", &json!({"subnet": "10.6.0.0/16", "ips": ips}));
    let router = router_of_subnet(wide, narrow.clone());
    assert_eq!(refusal_of(&router, &pool(&["10.6.0.1-10.6.0.99"]), &Value::Null).await, "");
    let message = refusal_of(&router, &pool(&["10.6.0.99-10.6.0.100"]), &Value::Null).await;
    assert!(message.contains("add some IP ranges [10.6.0.100]"), "{message}");
    let router = router_of_subnet(json!({"kind": "Status", "code": 500}), narrow);
    let message = refusal_of(&router, &pool(&["10.6.0.99"]), &Value::Null).await;
    assert!(
        message.starts_with("cannot read SpiderSubnet s, to which the pool belongs, try again"),
        "{message}"
    );
}

/// As the leader writes: the status first, then the pool.
#[tokio::test]
async fn an_applications_pool_has_the_addresses_that_the_stored_subnet_has_for_it() {
    let seen = subnet("s", "10.6.0.1-10.6.0.9", &json!({}));
    let stored = subnet("s", "10.6.0.1-10.6.0.9", &json!({"p": {"ips": ["10.6.0.1-10.6.0.2"]}}));
    let router = router_of_subnet(stored, seen);
    let auto = |ips: &[&str], labels: &Value| {
        let affinity = json!({"matchLabels": {"ipam.spidernet.io/app-name": "web"}});
        let mut pool = pool("p", &json!({"subnet": "10.6.0.0/16", "ips": ips, "podAffinity": affinity}));
        pool["metadata"]["labels"] = labels.clone();
        pool
    };
    let label = json!({"ipam.spidernet.io/owner-application-name": "web"});
    let two = auto(&["10.6.0.1-10.6.0.2"], &label);
    assert_eq!(refusal_of(&router, &two, &Value::Null).await, "");
    for new in [auto(&["10.6.0.1-10.6.0.3"], &label), auto(&["10.6.0.1-10.6.0.3"], &json!({}))] {
        let message = refusal_of(&router, &new, &two).await;
        assert!(message.contains("illegal to update AutoPool.Spec.IPs"), "{message}");
    }
    let mut disabled = two.clone();
    disabled["spec"]["disable"] = json!(true);
    assert_eq!(refusal_of(&router, &disabled, &two).await, "");
}

/// The review of another prefix length, of addresses that pools have, and of a deletion.
#[tokio::test]
async fn a_subnet_is_told_of_the_pools_that_it_hits() {
    let (router, known) = router();
    for (name, cidr, ips) in [("member", "10.6.0.0/16", "10.6.0.50"), ("narrow", "10.6.9.0/24", "10.6.9.1")] {
        let pool: PoolObject =
            serde_json::from_value(pool(name, &json!({"subnet": cidr, "ips": [ips]}))).unwrap();
        known.write(|known| known.apply(KnownPool::from(pool)));
    }
    let records = json!({"auto": {"ips": ["10.6.0.8"], "application": "apps_v1_Deployment_ns_web"}});
    let old = subnet("s", "10.6.0.1-10.6.0.99", &records);
    let ask = async |operation: &str, new: &Value, old: &Value| {
        let review = review("SpiderSubnet", operation, new, old);
        let (_, answer) = ask(&router, VALIDATE_SUBNET, review).await;
        answer["response"]["status"]["message"].as_str().unwrap_or_default().to_owned()
    };
    let message = ask("CREATE", &subnet("s", "10.6.0.1-10.6.0.9", &json!({})), &Value::Null).await;
    for part in ["overlap with SpiderIPPool narrow", "SpiderIPPool member owns some IP addresses [10.6.0.50]"]
    {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    let message = ask("UPDATE", &subnet("s", "10.6.0.1-10.6.0.7", &records), &old).await;
    for part in
        ["[10.6.0.8] that is being used by IPPool auto", "[10.6.0.50] that is being used by IPPool member"]
    {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    assert!(!message.contains("narrow"), "{message}");
    let message = ask("DELETE", &Value::Null, &old).await;
    assert!(message.contains("allocated IPs(2): IPPool auto, member have them"), "{message}");
}

#[tokio::test]
async fn never_panics_on_arbitrary_input() {
    let (router, _) = router();
    for body in ["", "{", "null", "{}", r#"{"request": {"uid": 1}}"#, "\u{0}"] {
        assert_eq!(ask(&router, VALIDATE, body.to_owned()).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
    for kind in Kind::ALL {
        for action in ["mutate", "validate"] {
            let path = format!("/{action}-spiderpool-spidernet-io-v2beta1-{}", kind.path());
            let specs = [
                json!([]),
                json!([4, ["10.6.0.2", "10.6.0.1"]]),
                json!([null, "10.6.0.0/16", ["10.6.0.2", "10.6.0.1"], [], null, null, false, false, []]),
                json!({"ips": 1, "subnet": null}),
            ];
            let objects = specs.iter().map(|spec| pool("p", spec));
            for object in objects.chain([json!({}), json!({"spec": []}), Value::Null]) {
                for operation in ["CREATE", "UPDATE", "DELETE", "CONNECT"] {
                    let (status, _) = ask(&router, &path, review("K", operation, &object, &object)).await;
                    assert!(status.is_success() || status == StatusCode::BAD_REQUEST, "{path} {object}");
                }
            }
        }
    }
    let large = "x".repeat(MAX_BODY + 1);
    assert_eq!(ask(&router, VALIDATE, large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn pods_of_any_form_are_answered() {
    let (router, known) = router();
    let namespace = json!({"metadata": {"name": "", "annotations": {INJECTION_KEYS[0]: "v"}}});
    let namespace: PartialObjectMeta<Namespace> = serde_json::from_value(namespace).unwrap();
    let network = json!({
        "metadata": {"namespace": "ns", "name": "n", "labels": {INJECTION_KEYS[1]: "v", INJECTION_KEYS[0]: "v"}},
        "spec": {"cniType": "macvlan", "macvlan": {
            "master": ["eth1"], "rdmaResourceName": "r", "ippools": {"ipv4": ["p"]},
        }},
    });
    let network: SpiderMultusConfig = serde_json::from_value(network).unwrap();
    known.write(|known| {
        known.apply(KnownNamespace::from(namespace));
        known.apply(KnownNetwork::from(network));
    });
    let containers = [
        json!(null),
        json!(1),
        json!([]),
        json!([1]),
        json!([{"resources": 1}]),
        json!([{"resources": {"limits": []}}]),
    ];
    for containers in containers {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
        let (status, answer) = ask(&router, POD_PATH, review("Pod", "CREATE", &pod, &Value::Null)).await;
        assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(true)), "{pod}");
    }
    for body in ["", "{", "null"] {
        assert_eq!(ask(&router, POD_PATH, body.to_owned()).await.0, StatusCode::BAD_REQUEST, "{body}");
    }
}

/// It would run without its networks.
#[tokio::test(start_paused = true)]
async fn a_pod_is_not_admitted_while_it_is_not_known_what_its_namespace_asks_for() {
    let (router, _) = router();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": []}});
    let (_, answer) = ask(&router, POD_PATH, review("Pod", "CREATE", &pod, &Value::Null)).await;
    let response = &answer["response"];
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(503)));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("which networks the Pod gets, try again: the Namespace could not be read"),
        "{message}"
    );
}

#[tokio::test]
async fn the_health_check_is_answered() {
    let (router, _) = router();
    assert_eq!(ask(&router, "/webhook-health-check", String::new()).await.0, StatusCode::OK);
}
