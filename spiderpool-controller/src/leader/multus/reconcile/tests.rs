//! What a user is told of failures.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use kube::runtime::events::Reporter;
use serde_json::json;
use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_runtime::watch::Index as _;

use super::*;
use crate::network_attachment::OWNER_LABEL;

/// The notes of the Events of a network that is reconciled once, with what the watches have after `change`.
async fn notes(kind_is_served: bool, change: impl FnOnce(&mut Networks)) -> Vec<String> {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&notes);
    let service = tower::service_fn(move |request: Request<Body>| {
        let log = Arc::clone(&log);
        async move {
            let is_event = request.uri().path().starts_with("/apis/events.k8s.io/");
            let is_served = is_event || (kind_is_served && request.method() == Method::GET);
            let body = request.into_body().collect().await.unwrap().to_bytes();
            if is_event {
                let event: Value = serde_json::from_slice(&body).unwrap();
                log.lock().unwrap().push(event["note"].as_str().unwrap().to_owned());
                return Ok::<_, Infallible>(Response::new(Body::from(body.to_vec())));
            }
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []});
            let missing = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "code": 404, "reason": "NotFound", "message": "not found"});
            let (code, answer) = if is_served { (200, list) } else { (404, missing) };
            Ok(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap())
        }
    });
    let client = Client::new(service, "default");
    let networks = Shared::<Networks>::default();
    let meta = json!({"namespace": "ns", "name": "net", "uid": "u1"});
    let spec = json!({"cniType": "macvlan", "macvlan": {"master": ["ens192"]}});
    let config: SpiderMultusConfig = serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap();
    networks.write(|networks| {
        networks.apply(config);
        change(networks);
    });
    let reporter = Reporter { controller: "spiderpool".to_owned(), instance: None };
    let recorder = Recorder::new(client.clone(), reporter);
    let reconciler = MultusReconciler::new(Kubernetes::new(client), networks, recorder);
    let key = ObjectKey { namespace: "ns".into(), name: "net".into() };
    let _outcome = reconciler.reconcile(&key, Instant::now()).await;
    notes.lock().unwrap().clone()
}

/// One of ours that is to be repaired.
fn edited(networks: &mut Networks) {
    let key = ObjectKey { namespace: "ns".into(), name: "net".into() };
    let labels = [(OWNER_LABEL.to_owned(), "u1".to_owned())].into();
    networks.reset(vec![FoundAttachment { key, labels, ..FoundAttachment::default() }]);
}

#[tokio::test]
async fn what_was_deleted_meanwhile_is_no_missing_multus() {
    assert_eq!(notes(true, edited).await, [""; 0], "it is made again when the watch tells");
    let notes = notes(false, edited).await;
    assert!(notes.len() == 1 && notes[0].contains("install Multus"), "{notes:?}");
}

#[tokio::test]
async fn attachments_that_cannot_be_listed_are_said() {
    let notes = notes(true, |networks| networks.set_unreadable("forbidden".to_owned())).await;
    assert_eq!(notes, ["the API server does not list NetworkAttachmentDefinitions: forbidden"]);
}
