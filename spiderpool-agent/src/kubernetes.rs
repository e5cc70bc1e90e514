//! The way to the API server.
//!
//! Built by hand where kube's own client would cost: without TCP_NODELAY a POST takes 45 ms instead of 3, and more
//! than a few writes in flight per agent make the API server answer 429.

mod failure;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

pub use failure::Failure;

/// Writes in flight per agent.
const WRITES: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection whose peer is gone is given up after this time: watches would wait for ever.
const SILENCE: Duration = Duration::from_secs(20);
/// How long one request may take before its outcome is counted as unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A client and the permission to write. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    writes: Arc<Semaphore>,
}

impl Kubernetes {
    /// From `KUBECONFIG`, or from the pod's service account.
    pub async fn connect() -> anyhow::Result<Self> {
        let config = Config::infer().await?;
        Ok(Self { client: client(config)?, writes: Arc::new(Semaphore::new(WRITES)) })
    }

    /// For watches and reads.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Whether the API server answers.
    pub async fn probe(&self) -> Result<(), Failure> {
        self.read(self.client.apiserver_version()).await.map(|_| ())
    }

    /// One read, with a time limit.
    pub async fn read<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        limited(request).await
    }

    /// One write, after the writes that were asked for before it, with a time limit.
    pub async fn write<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        // The semaphore is never closed.
        let _permit = self.writes.acquire().await;
        limited(request).await
    }
}

async fn limited<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(outcome) => outcome.map_err(Failure::from),
        Err(_) => Err(Failure::Silence(REQUEST_TIMEOUT)),
    }
}

fn client(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(SILENCE / 2));
    connector.set_tcp_user_timeout(Some(SILENCE));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let transport: hyper_util::client::legacy::Client<_, Body> =
        hyper_util::client::legacy::Builder::new(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        // Waits as long as Retry-After says.
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .map_err(tower::BoxError::from)
        .service(transport);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
