//! What requests to the API server take and come to, counted where they are sent: whoever sends them, watches included.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::{Method, Request, Response, StatusCode, Uri};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tower::{Layer, Service};

/// Upper bounds of the durations, in seconds.
const BOUNDS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 3.0, 10.0];

/// The code of a request that no answer came to.
const NO_ANSWER: &str = "none";
/// The code of a request that nobody waits for any more: its time was over, or its caller is gone.
const ABANDONED: &str = "abandoned";

/// What a request asks for, as the API server's own metrics call it. Few, because names of objects are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Target {
    verb: &'static str,
    resource: String,
}

impl Target {
    fn of(method: &Method, uri: &Uri) -> Self {
        // Proxies put a path of their own before it.
        let mut segments = uri.path().split('/').skip_while(|segment| !matches!(*segment, "api" | "apis"));
        let beyond = match segments.next() {
            // The version.
            Some("api") => 1,
            // The group and the version.
            Some(_) => 2,
            None => 0,
        };
        let mut rest: Vec<_> = segments.skip(beyond).filter(|segment| !segment.is_empty()).collect();
        if rest.len() > 2 && rest[0] == "namespaces" && !matches!(rest[2], "status" | "finalize") {
            rest.drain(..2);
        }
        let (resource, name) = (rest.first(), rest.get(1));
        let resource = match (resource, rest.get(2)) {
            (Some(resource), Some(part)) => format!("{resource}/{part}"),
            (Some(resource), None) => (*resource).to_owned(),
            // The version of the API server, and lists of what it serves.
            (None, _) => "other".to_owned(),
        };
        let is_watch = uri.query().unwrap_or_default().split('&').any(|one| one == "watch=true");
        let verb = match (method.as_str(), name) {
            ("GET", _) if is_watch => "watch",
            ("GET", None) if resource != "other" => "list",
            ("GET" | "HEAD", _) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", Some(_)) => "delete",
            ("DELETE", None) => "deletecollection",
            _ => "other",
        };
        Self { verb, resource }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    verb: &'static str,
    resource: String,
    code: String,
}

/// What is exported of requests to the API server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    requests: Family<Outcome, Counter>,
    durations: Family<Target, Histogram>,
    writes_in_flight: Gauge,
    writes_waiting: Gauge,
}

impl Default for ApiMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BOUNDS)),
            writes_in_flight: Gauge::default(),
            writes_waiting: Gauge::default(),
        }
    }
}

impl ApiMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("spiderpool_api");
        registry.register(
            "requests",
            "Requests to the API server by what was asked for and the status of the answer",
            self.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "Time until the API server's answer began",
            self.durations.clone(),
        );
        registry.register(
            "writes_in_flight",
            "Writes that the API server has not answered",
            self.writes_in_flight.clone(),
        );
        registry.register(
            "writes_waiting",
            "Writes that wait until others have been answered",
            self.writes_waiting.clone(),
        );
    }

    /// A write that has been sent, until it is dropped.
    pub(crate) fn write_in_flight(&self) -> Counted {
        Counted::new(&self.writes_in_flight)
    }

    /// A write that waits for its turn, until it is dropped.
    pub(crate) fn write_waiting(&self) -> Counted {
        Counted::new(&self.writes_waiting)
    }
}

/// Is counted while it exists.
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One request, counted when it ends, also by being dropped.
struct Attempt {
    metrics: ApiMetrics,
    target: Target,
    begun: Instant,
    code: String,
}

impl Attempt {
    fn ends(mut self, code: &str) {
        code.clone_into(&mut self.code);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Target { verb, resource } = self.target.clone();
        let code = std::mem::take(&mut self.code);
        self.metrics.requests.get_or_create(&Outcome { verb, resource, code }).inc();
        self.metrics.durations.get_or_create(&self.target).observe(self.begun.elapsed().as_secs_f64());
    }
}

/// Counts what passes it.
#[derive(Debug, Clone)]
pub(crate) struct Observer(pub(crate) ApiMetrics);

impl<S> Layer<S> for Observer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, metrics: self.0.clone() }
    }
}

/// A client whose requests are counted.
#[derive(Debug, Clone)]
pub(crate) struct Observed<S> {
    inner: S,
    metrics: ApiMetrics,
}

impl<S, B, R> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let attempt = Attempt {
            metrics: self.metrics.clone(),
            target: Target::of(request.method(), request.uri()),
            begun: Instant::now(),
            code: ABANDONED.to_owned(),
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let status = answer.as_ref().map(Response::status);
            attempt.ends(status.as_ref().map_or(NO_ANSWER, StatusCode::as_str));
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn requests_are_called_as_the_api_server_calls_them() {
        for (method, uri, verb, resource) in [
            ("GET", "/version", "get", "other"),
            ("GET", "/apis/g/v1", "get", "other"),
            ("GET", "/api/v1/pods?limit=500", "list", "pods"),
            ("GET", "/api/v1/pods?watch=true&resourceVersion=7", "watch", "pods"),
            ("GET", "/api/v1/namespaces/ns/pods/p", "get", "pods"),
            ("GET", "/api/v1/namespaces/ns", "get", "namespaces"),
            ("PUT", "/api/v1/namespaces/ns/status", "update", "namespaces/status"),
            (
                "PATCH",
                "/apis/spiderpool.spidernet.io/v2beta1/spiderippools/p/status",
                "patch",
                "spiderippools/status",
            ),
            (
                "POST",
                "/apis/spiderpool.spidernet.io/v2beta1/spideripaddresses",
                "create",
                "spideripaddresses",
            ),
            (
                "DELETE",
                "/k8s/clusters/c-1/apis/g/v1/namespaces/ns/spiderendpoints/p",
                "delete",
                "spiderendpoints",
            ),
            ("DELETE", "/apis/g/v1/spiderippools?limit=1", "deletecollection", "spiderippools"),
        ] {
            let found = Target::of(&method.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!((found.verb, found.resource.as_str()), (verb, resource), "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn answers_failures_and_what_nobody_waits_for_are_counted() {
        let (metrics, mut registry) = (ApiMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let observer = Observer(metrics);
        let request = || Request::get("/api/v1/pods/p").body(()).unwrap();
        let answers = observer.layer(tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::io::Error>(Response::builder().status(404).body(()).unwrap())
        }));
        assert_eq!(answers.oneshot(request()).await.unwrap().status(), 404);
        let fails = observer.layer(tower::service_fn(|_: Request<()>| async {
            Err::<Response<()>, _>(std::io::Error::other("refused"))
        }));
        fails.oneshot(request()).await.unwrap_err();
        let mut hangs = observer.layer(tower::service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<()>, std::io::Error>>()
        }));
        drop(hangs.call(request()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for code in ["404", "none", "abandoned"] {
            let line =
                format!("spiderpool_api_requests_total{{verb=\"get\",resource=\"pods\",code={code:?}}} 1");
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(
            text.contains("spiderpool_api_request_duration_seconds_count{verb=\"get\",resource=\"pods\"} 3")
        );
    }
}
