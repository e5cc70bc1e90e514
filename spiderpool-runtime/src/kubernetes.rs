//! Requests to the API server.
//!
//! Built by hand where kube's own client would cost: without TCP_NODELAY a POST takes 45 ms instead of 3, and more
//! than a few writes in flight per process make the API server answer 429.

mod delete;
mod event;
mod failure;
mod finalizer;
mod resumed_watch;
mod retries;

use std::sync::Arc;
use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::api::ListParams;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

use crate::api_metrics::{ApiMetrics, Observer};
use resumed_watch::{ResumedWatches, Rewinds};
use retries::Retries;

pub use delete::{Deletion, Preconditions};
pub use event::publish_event;
pub use failure::ApiFailure;

/// Writes in flight per process.
const WRITES: usize = 8;
/// Deletions in flight beside them, when other writes take all the places.
const DELETIONS: usize = 1;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same with the handshake of TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is closed when its peer has not answered for this long; a watch would wait for ever.
const PEER_TIMEOUT: Duration = Duration::from_secs(20);
/// It is closed, too, when nothing has come by it for this long: what is between may acknowledge packets for a server that is
/// gone. A watch is ended by the API server sooner, after 290 seconds, and by kube's watcher after 295.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(5);
/// Limit of one request; after it, the outcome is unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// The API server cannot be accessed.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// There is neither a kubeconfig file nor a service account.
    #[error("no access to the API server: set KUBECONFIG or run in a pod: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// The kubeconfig file or service account cannot be used.
    #[error("the access to the API server cannot be used: {0}")]
    Client(#[from] kube::Error),
    /// The kubeconfig file or the environment names a proxy.
    #[error(
        "the API server cannot be reached by the proxy {0}: proxies are not supported, remove proxy-url from the kubeconfig \
         file, or unset HTTPS_PROXY"
    )]
    Proxy(String),
}

/// A client and the permission to write. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    metrics: ApiMetrics,
    writes: Arc<Semaphore>,
    deletions: Arc<Semaphore>,
    rewinds: Rewinds,
}

impl Kubernetes {
    /// From `KUBECONFIG`, or from the pod's service account.
    pub async fn connect() -> Result<Self, ConnectError> {
        let config = Config::infer().await?;
        let (metrics, rewinds) = (ApiMetrics::default(), Rewinds::default());
        let client = client(config, &metrics, &rewinds)?;
        Ok(Self { metrics, rewinds, ..Self::new(client) })
    }

    /// By a client that exists. Its requests are not counted.
    pub fn new(client: Client) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let metrics = ApiMetrics::default();
        let rewinds = Rewinds::default();
        Self { client, metrics, writes: semaphore(WRITES), deletions: semaphore(DELETIONS), rewinds }
    }

    /// What its requests take and come to.
    pub fn metrics(&self) -> &ApiMetrics {
        &self.metrics
    }

    /// For watches and reads.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Changes when a watch has found the API server in a state that it had left before: etcd was restored from an older
    /// snapshot. Watches list anew by themselves; what else was read of it may never have been so.
    pub fn rewinds(&self) -> watch::Receiver<u64> {
        self.rewinds.subscribe()
    }

    /// Whether the API server answers.
    pub async fn probe(&self) -> Result<(), ApiFailure> {
        self.read(self.client.apiserver_version()).await.map(|_| ())
    }

    /// One read, within the time limit.
    pub async fn read<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiFailure> {
        limited(request).await
    }

    /// One write, within the time limit, after the writes that were requested before it.
    pub async fn write<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiFailure> {
        let waiting = self.metrics.write_waiting();
        // The semaphore is never closed.
        let _permit = self.writes.acquire().await;
        drop(waiting);
        let _counted = self.metrics.write_in_flight();
        limited(request).await
    }

    /// As [`Self::write`]; not sent if it is `abandoned` before its turn comes.
    pub async fn write_unless_abandoned<T>(
        &self,
        abandoned: &CancellationToken,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApiFailure> {
        let waiting = self.metrics.write_waiting();
        let permit = abandoned.run_until_cancelled(self.writes.acquire()).await;
        let _permit = permit.ok_or(ApiFailure::Abandoned)?;
        drop(waiting);
        let _counted = self.metrics.write_in_flight();
        limited(request).await
    }

    /// One deletion: it has a place of its own when other writes take all of theirs.
    async fn write_deletion<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApiFailure> {
        let waiting = self.metrics.write_waiting();
        let _permit = tokio::select! {
            biased;
            permit = self.writes.acquire() => permit,
            permit = self.deletions.acquire() => permit,
        };
        drop(waiting);
        let _counted = self.metrics.write_in_flight();
        limited(request).await
    }

    /// One write that does not queue behind others, for Leases.
    pub async fn write_unthrottled<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApiFailure> {
        let _counted = self.metrics.write_in_flight();
        limited(request).await
    }

    /// All objects of a kind, each page reduced before the next one is read.
    pub async fn pages<K, S>(&self, api: &Api<K>, reduce: impl Fn(K) -> S) -> Result<Vec<S>, ApiFailure>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.pages_of(api, PAGE, reduce).await
    }

    /// As [`Self::pages`], with `size` objects a page: for objects that are large.
    pub async fn pages_of<K, S>(
        &self,
        api: &Api<K>,
        size: u32,
        reduce: impl Fn(K) -> S,
    ) -> Result<Vec<S>, ApiFailure>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        self.pages_by(api, ListParams::default().limit(size), reduce).await
    }

    /// As [`Self::pages`], of the objects that `parameters` select, with a page of their limit or of the usual size.
    pub async fn pages_by<K, S>(
        &self,
        api: &Api<K>,
        mut parameters: ListParams,
        reduce: impl Fn(K) -> S,
    ) -> Result<Vec<S>, ApiFailure>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        parameters.limit.get_or_insert(PAGE);
        let mut all = Vec::new();
        loop {
            let page = self.read(api.list(&parameters)).await?;
            all.extend(page.items.into_iter().map(&reduce));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(all),
            }
        }
    }
}

async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, ApiFailure> {
    // Requests are large, and what follows would hold several copies.
    let limited = Box::pin(tokio::time::timeout(REQUEST_TIMEOUT, request));
    match retries::with_refusal(limited).await {
        (Ok(outcome), _) => outcome.map_err(ApiFailure::from),
        (Err(_), Some(status)) => Err(ApiFailure::Busy { status, limit: REQUEST_TIMEOUT }),
        (Err(_), None) => Err(ApiFailure::Timeout(REQUEST_TIMEOUT)),
    }
}

fn client(config: Config, metrics: &ApiMetrics, rewinds: &Rewinds) -> Result<Client, ConnectError> {
    let (observer, resumed) = (Observer(metrics.clone()), ResumedWatches(rewinds.clone()));
    if let Some(proxy) = &config.proxy_url {
        return Err(ConnectError::Proxy(proxy.to_string()));
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(PEER_TIMEOUT / 2));
    connector.set_tcp_user_timeout(Some(PEER_TIMEOUT));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(Some(HANDSHAKE_TIMEOUT));
    connector.set_read_timeout(Some(SILENCE_TIMEOUT));
    // How long the connection was idle before a request does not count.
    connector.set_reset_reader_on_write(true);
    let transport: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Builder::new(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(Retries::default()))
        .layer(resumed)
        .layer(observer)
        .option_layer(config.auth_layer()?)
        .map_err(tower::BoxError::from)
        .service(transport);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;

    use super::*;

    fn kube() -> Kubernetes {
        let service = tower::service_fn(|_: hyper::Request<Body>| async {
            Ok::<_, Infallible>(hyper::Response::new(Body::empty()))
        });
        Kubernetes::new(Client::new(service, "default"))
    }

    #[tokio::test]
    async fn a_deletion_does_not_wait_for_other_writes_and_who_is_gone_leaves_the_queue() {
        let kube = kube();
        let writes = (0..WRITES).map(|_| kube.write(pending::<kube::Result<()>>()));
        let abandoned = CancellationToken::new();
        let queued = kube.write_unless_abandoned(&abandoned, async { Ok(()) });
        let others = async {
            kube.write_deletion(async { Ok(()) }).await.unwrap();
            abandoned.cancel();
        };
        tokio::select! {
            biased; // The others have all places before it asks.
            _ = futures::future::join_all(writes) => panic!("they never end"),
            (queued, ()) = async { tokio::join!(queued, others) } => {
                assert!(matches!(queued, Err(ApiFailure::Abandoned)), "it was not sent");
            }
        }
    }
}
