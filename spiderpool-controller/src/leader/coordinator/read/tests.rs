//! What failures of single requests become.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use spiderpool_api::node::NodeObject;
use spiderpool_runtime::watch::Index as _;

use super::*;
use crate::leader::state::SlimNode;

/// What is read of an API server by the paths of requests; `None`: it does not answer.
async fn read(
    answer: impl Fn(&str) -> Option<(u16, Value)> + Clone + Send + 'static,
) -> Result<Sources, ApiFailure> {
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = answer(&request.uri().to_string());
        async move {
            let Some((status, body)) = answer else { return std::future::pending().await };
            let body = Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    let state = Shared::<ClusterState>::default();
    let node = json!({"metadata": {"name": "a"}, "spec": {}, "status": {}});
    let node = SlimNode::from(serde_json::from_value::<NodeObject>(node).unwrap());
    state.write(|state| state.reset(vec![node]));
    let kube = Kubernetes::new(Client::new(service, "default"));
    let reader = Reader::new(kube, state, ("cilium".to_owned(), "cilium-config".to_owned()), None);
    Box::pin(reader.read(PodCidrType::Auto)).await.map(Option::unwrap)
}

fn not_found() -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
        "reason": "NotFound", "message": "not found"});
    (404, status)
}

fn list(items: &Value) -> (u16, Value) {
    (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
}

fn pools() -> (u16, Value) {
    list(&json!([{"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "a"},
        "spec": {"cidr": "10.244.0.0/16"}}]))
}

/// The client repeats a request that is answered with 503 until its time is over: no answer at all is the same.
#[tokio::test(start_paused = true)]
async fn calicos_api_server_that_is_away_does_not_cost_its_pools() {
    let answers = |uri: &str| match uri {
        _ if uri.contains("/projectcalico.org/v3") => None,
        _ if uri.contains("/crd.projectcalico.org/") => Some(pools()),
        _ => Some(not_found()),
    };
    let before = tokio::time::Instant::now();
    let sources = read(answers).await.unwrap();
    assert_eq!(sources.calico.found().unwrap().texts(), ["10.244.0.0/16"]);
    assert!(
        before.elapsed() <= SECOND_PLACE,
        "a change of a pool does not wait for it: {:?}",
        before.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn kinds_of_other_projects_that_cannot_be_read_do_not_end_the_read() {
    let answers = |uri: &str| match uri {
        _ if uri.contains("/projectcalico.org/v3") => None,
        _ if uri.contains("/crd.projectcalico.org/") => Some(list(&json!([]))),
        _ if uri.contains("/cilium.io/") => Some((500, json!("conversion webhook failed"))),
        _ => Some(not_found()),
    };
    let sources = read(answers).await.unwrap();
    assert!(sources.calico.failure().is_some(), "all pools may be there: {:?}", sources.calico);
    assert!(sources.cilium_pools.failure().is_some(), "{:?}", sources.cilium_pools);
    let away = |uri: &str| if uri.contains("servicecidrs") { None } else { Some(not_found()) };
    assert!(read(away).await.is_err(), "the API server itself: the status stays");
}

/// A tenant's pod may have any label.
#[tokio::test]
async fn agents_are_daemon_sets_of_the_clusters_own_namespaces() {
    let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&asked);
    let answers = move |uri: &str| {
        if uri.contains("/pods") || uri.contains("/daemonsets/") {
            log.lock().unwrap().push(uri.to_owned());
        }
        let set = |count: i32| {
            let status = json!({"currentNumberScheduled": count, "desiredNumberScheduled": count,
                "numberMisscheduled": 0, "numberReady": 0});
            Some((200, json!({"metadata": {"name": "a"}, "status": status})))
        };
        match uri {
            _ if uri.contains("/namespaces/calico-system/daemonsets/calico-node") => set(3),
            // No node is selected any more.
            _ if uri.contains("/namespaces/cilium/daemonsets/cilium") => set(0),
            _ => Some(not_found()),
        }
    };
    let sources = read(answers).await.unwrap();
    assert_eq!(sources.agents, Read::Found(Agents { calico: true, cilium: false }));
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|uri| uri.contains("/namespaces/")), "{asked:?}");
    assert!(asked.iter().all(|uri| uri.contains("resourceVersion=0")), "out of the watch cache: {asked:?}");
}
