//! Watches that go on from where another one ended.
//!
//! kube's watcher lists anew when an event of the watch says that its resourceVersion has expired, and only then. Two more
//! answers of an API server mean the same and are made such an event here:
//!
//! * A response with status 410.
//! * Silence after etcd was restored from an older snapshot: a watch from a resourceVersion that is still to come is served, and
//!   gets no event before that is reached (`cacheWatcher.process` in apiserver's `pkg/storage/cacher/cache_watcher.go`, up to
//!   Kubernetes 1.35 at least). So before a watch goes on, the API server is asked where it is, by a list of one object. It
//!   also tells of an etcd that was restored with `etcdutl snapshot restore --bump-revision`, whose watches end as those that
//!   have been away for long.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body as HttpBody, Bytes};
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use kube::client::Body;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tower::{BoxError, Layer, Service, ServiceExt as _};
use tracing::warn;

/// The metadata of objects alone.
const METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;q=0.9";
/// So many writes are not made while a watch is away: at a thousand a second they take more than a day.
const LEAP: u64 = 100_000_000;
/// A selector that may be what gives the right to list.
const BY_NAME: &str = "fieldSelector=metadata.name%3D";

/// After this time all watches have been resumed: they pause for a minute at most.
const RESUMED: Duration = Duration::from_mins(3);

/// How often the API server was found in a state that it had left before. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Rewinds {
    count: watch::Sender<u64>,
    latest: Arc<Mutex<Option<Rewind>>>,
}

/// One that was found.
#[derive(Debug)]
struct Rewind {
    at: Instant,
    /// The watches that have listed anew since, or are about to.
    told: HashSet<String>,
}

impl Rewinds {
    /// Changes with each.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// A watch has found one.
    fn found_by(&self, watched: String) {
        let told = HashSet::from([watched]);
        *self.latest() = Some(Rewind { at: Instant::now(), told });
        self.count.send_modify(|count| *count += 1);
    }

    /// Whether another watch has found one lately, of which this one is not told yet: by the time that it is resumed the API
    /// server may have come to where it was before.
    fn tell(&self, watched: &str) -> bool {
        let mut latest = self.latest();
        let latest = latest.as_mut().filter(|latest| latest.at.elapsed() < RESUMED);
        latest.is_some_and(|latest| latest.told.insert(watched.to_owned()))
    }

    fn latest(&self) -> MutexGuard<'_, Option<Rewind>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes watches list anew that could not go on.
#[derive(Debug, Clone)]
pub(super) struct ResumedWatches(pub(super) Rewinds);

impl<S> Layer<S> for ResumedWatches {
    type Service = Resumable<S>;

    fn layer(&self, inner: S) -> Resumable<S> {
        Resumable { inner, rewinds: self.0.clone() }
    }
}

/// A client with such watches.
#[derive(Debug, Clone)]
pub(super) struct Resumable<S> {
    inner: S,
    rewinds: Rewinds,
}

type Answer<R> = Response<Either<R, Full<Bytes>>>;

impl<S, R> Service<Request<Body>> for Resumable<S>
where
    S: Service<Request<Body>, Response = Response<R>, Error: Into<BoxError>, Future: Send>
        + Clone
        + Send
        + 'static,
    R: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Answer<R>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer<R>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(version) = resumed_version(&request) else {
            let answer = self.inner.call(request);
            return Box::pin(async { Ok(answer.await.map_err(Into::into)?.map(Either::Left)) });
        };
        // The one that is ready.
        let next = self.inner.clone();
        let (mut inner, rewinds) = (std::mem::replace(&mut self.inner, next), self.rewinds.clone());
        Box::pin(async move {
            let uri = request.uri().clone();
            let watched = watched(&uri);
            let found = inner.call(position_request(&uri)?).await.map_err(Into::into)?;
            match found.status() {
                StatusCode::OK => {
                    let body = found.into_body().collect().await.map_err(Into::into)?.to_bytes();
                    if let Some(now) = position(&body).filter(|now| was_restored(version, *now)) {
                        warn!(
                            path = uri.path(),
                            version,
                            now,
                            "etcd was restored: the API server is not where it was, listing anew"
                        );
                        rewinds.found_by(watched);
                        return Ok(expired("the API server has gone back in time"));
                    }
                    if rewinds.tell(&watched) {
                        return Ok(expired(
                            "the API server has gone back in time, as another watch has found",
                        ));
                    }
                }
                // Not a right moment for a watch either.
                status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    return Ok(found.map(Either::Left));
                }
                // Who may not list may watch.
                _ => {}
            }
            let answer = inner.ready().await.map_err(Into::into)?.call(request).await.map_err(Into::into)?;
            if answer.status() == StatusCode::GONE {
                return Ok(expired("the API server has answered 410 Gone"));
            }
            Ok(answer.map(Either::Left))
        })
    }
}

/// Whether etcd's revision cannot have become `now` by writes since it was `version`.
fn was_restored(version: u64, now: u64) -> bool {
    now < version || now - version >= LEAP
}

/// What is watched, whatever the resourceVersion. Two watches of a process with equal parameters are taken for one.
fn watched(uri: &Uri) -> String {
    let query = uri.query().unwrap_or_default().split('&');
    let query = query.filter(|one| !one.starts_with("resourceVersion="));
    query.fold(uri.path().to_owned(), |all, one| format!("{all}&{one}"))
}

/// From where a watch goes on; `None` of everything else, also of one that begins with what there is.
fn resumed_version(request: &Request<Body>) -> Option<u64> {
    let parameters = || request.uri().query().unwrap_or_default().split('&');
    let is_watch = request.method() == Method::GET && parameters().any(|one| one == "watch=true");
    let version = parameters().find_map(|one| one.strip_prefix("resourceVersion="))?.parse().ok();
    version.filter(|version| is_watch && *version > 0)
}

/// The request that tells where the API server is: the most recent list of the watched kind, as short as it can be.
fn position_request(watched: &Uri) -> Result<Request<Body>, BoxError> {
    let selector = watched.query().unwrap_or_default().split('&').find(|one| one.starts_with(BY_NAME));
    let selector = selector.map(|selector| format!("&{selector}")).unwrap_or_default();
    let mut parts = watched.clone().into_parts();
    parts.path_and_query = Some(format!("{}?limit=1{selector}", watched.path()).parse()?);
    Ok(Request::get(Uri::from_parts(parts)?).header(ACCEPT, METADATA).body(Body::empty())?)
}

/// The resourceVersion of a list. They grow with every write to etcd, whatever the kind.
fn position(list: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct List {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    let list: List = serde_json::from_slice(list).ok()?;
    list.metadata.resource_version.parse().ok()
}

/// A watch whose only event says that it cannot go on.
fn expired<R>(message: &str) -> Answer<R> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
        "message": message,
    });
    let event = format!("{}\n", json!({"type": "ERROR", "object": status}));
    let mut response = Response::new(Either::Right(Full::from(event)));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
