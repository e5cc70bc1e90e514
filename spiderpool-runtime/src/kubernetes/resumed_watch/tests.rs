use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use super::*;

type Sent = Arc<Mutex<Vec<String>>>;

/// A client of an API server that gives `answer` by the path with its query, and what is asked of it.
fn client(answer: impl Fn(&str) -> (u16, String) + Clone + Send + 'static) -> (Client, Rewinds, Sent) {
    let (rewinds, sent) = (Rewinds::default(), Sent::default());
    let asked = Arc::clone(&sent);
    let service = tower::service_fn(move |request: Request<Body>| {
        let uri = request.uri().to_string();
        let (status, body) = answer(&uri);
        asked.lock().unwrap().push(uri);
        let response = Response::builder().status(status).body(Full::new(Bytes::from(body)));
        async { Ok::<_, Infallible>(response.unwrap()) }
    });
    (Client::new(ResumedWatches(rewinds.clone()).layer(service), "ns"), rewinds, sent)
}

fn list(version: u64) -> (u16, String) {
    let metadata = json!({"resourceVersion": version.to_string()});
    (200, json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": []}).to_string())
}

/// What follows the first list of a watch.
async fn after_the_list(client: Client) -> watcher::Result<Event<ConfigMap>> {
    let config = watcher::Config::default().fields("metadata.name=c");
    let mut events = std::pin::pin!(watcher(Api::<ConfigMap>::namespaced(client, "ns"), config));
    for _ in 0..2 {
        events.next().await.unwrap().unwrap();
    }
    let failure = events.next().await.unwrap();
    if failure.is_err() {
        assert!(matches!(events.next().await, Some(Ok(Event::Init))), "it does not list anew");
    }
    failure
}

fn is_watch(uri: &str) -> bool {
    uri.contains("watch=true")
}

#[tokio::test]
async fn a_watch_from_a_version_that_is_still_to_come_lists_anew() {
    // The second list is of an API server whose etcd was restored.
    let (client, rewinds, sent) = client(|uri| match uri {
        _ if is_watch(uri) => panic!("it would be silent"),
        _ if uri.contains("limit=1&") => list(70),
        _ => list(90),
    });
    let error = after_the_list(client).await.unwrap_err();
    assert!(error.to_string().contains("gone back in time"), "{error}");
    assert_eq!(*rewinds.subscribe().borrow(), 1);
    let asked = "/api/v1/namespaces/ns/configmaps?limit=1&fieldSelector=metadata.name%3Dc";
    assert_eq!(sent.lock().unwrap()[1], asked);
}

/// `etcdutl snapshot restore --bump-revision 1000000000`: nothing else tells it from a watch that was away for long.
#[tokio::test]
async fn an_etcd_restored_with_a_bumped_revision_is_noticed() {
    for (now, restored) in [(90, 0), (90 + LEAP - 1, 0), (1_000_000_070, 1)] {
        let (client, rewinds, _) = client(move |uri| match uri {
            _ if is_watch(uri) => (200, String::new()),
            _ => list(now),
        });
        let uri = "/api/v1/pods?watch=true&resourceVersion=90";
        let answer = client.send(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&body).contains("Expired"), restored == 1, "{now}");
        assert_eq!(*rewinds.subscribe().borrow(), restored, "{now}");
    }
}

/// The API server has had as many writes again when the second one is resumed. Each lists anew once.
#[tokio::test]
async fn what_one_watch_finds_all_are_told() {
    let (client, rewinds, _) = client(|uri| match uri {
        _ if is_watch(uri) => (200, String::new()),
        _ => list(100),
    });
    let is_expired = async |kind: &str, version: u64| {
        let uri = format!("/api/v1/{kind}?watch=true&resourceVersion={version}");
        let answer = client.send(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8_lossy(&body).contains("Expired")
    };
    assert!(!is_expired("nodes", 90).await);
    assert!(is_expired("pods", 110).await);
    assert!(!is_expired("pods", 100).await);
    assert!(is_expired("nodes", 90).await);
    assert!(!is_expired("nodes", 100).await);
    assert_eq!(*rewinds.subscribe().borrow(), 1);
}

#[tokio::test]
async fn a_watch_that_is_refused_with_410_lists_anew() {
    let gone = json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"}).to_string();
    let (client, rewinds, _) = client(move |uri| if is_watch(uri) { (410, gone.clone()) } else { list(90) });
    let error = after_the_list(client).await.unwrap_err();
    assert!(error.to_string().contains("410"), "{error}");
    assert_eq!(*rewinds.subscribe().borrow(), 0);
}

#[tokio::test]
async fn who_may_not_list_may_watch_and_an_overloaded_server_is_not_asked_twice() {
    for (code, watches) in [(403, 1), (429, 0), (503, 0), (200, 1)] {
        let (client, rewinds, sent) = client(move |uri| match uri {
            _ if is_watch(uri) => (200, String::new()),
            _ if code == 200 => list(90),
            _ => (code, json!({"kind": "Status", "status": "Failure", "code": code}).to_string()),
        });
        let uri = "/api/v1/pods?watch=true&resourceVersion=90&fieldSelector=spec.nodeName%3Dn";
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), if watches == 1 { 200 } else { code }, "{code}");
        let sent = sent.lock().unwrap();
        assert_eq!(sent.iter().filter(|uri| is_watch(uri)).count(), watches, "{code}: {sent:?}");
        assert_eq!(sent[0], "/api/v1/pods?limit=1", "a selector may make the API server read much");
        assert_eq!(*rewinds.subscribe().borrow(), 0);
    }
}

#[test]
fn only_a_watch_that_goes_on_is_checked() {
    let version = |uri: &str| resumed_version(&Request::get(uri).body(Body::empty()).unwrap());
    assert_eq!(version("/api/v1/pods?watch=true&resourceVersion=7&allowWatchBookmarks=true"), Some(7));
    for other in [
        "/api/v1/pods?resourceVersion=7&resourceVersionMatch=NotOlderThan",
        "/api/v1/pods?watch=true&resourceVersion=0",
        "/api/v1/pods?watch=true&resourceVersion=opaque",
        "/api/v1/pods?watch=true",
        "/api/v1/pods",
    ] {
        assert_eq!(version(other), None, "{other}");
    }
}
