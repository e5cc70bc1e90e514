//! The way to the API server.
//!
//! Built by hand where kube's own client would cost: without TCP_NODELAY a POST takes 45 ms instead of 3, and more
//! than a few writes in flight per process make the API server answer 429.

mod failure;

use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::core::ObjectMeta;
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

pub use failure::Failure;

/// Writes in flight per process.
const WRITES: usize = 8;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection whose peer is gone is given up after this time: watches would wait for ever.
const SILENCE: Duration = Duration::from_secs(20);
/// How long one request may take before its outcome is counted as unknown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Objects of a page of a list.
const PAGE: u32 = 500;

/// There is no way to the API server.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Neither a kubeconfig file nor a service account is there.
    #[error("no way to the API server: set KUBECONFIG or run in a pod: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// What is there cannot be used.
    #[error("the access to the API server cannot be used: {0}")]
    Client(#[from] kube::Error),
}

/// A client and the permission to write. Cheap to clone.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    writes: Arc<Semaphore>,
}

impl Kubernetes {
    /// From `KUBECONFIG`, or from the pod's service account.
    pub async fn connect() -> Result<Self, ConnectError> {
        let config = Config::infer().await?;
        Ok(Self::new(client(config)?))
    }

    /// By a client that exists.
    pub fn new(client: Client) -> Self {
        Self { client, writes: Arc::new(Semaphore::new(WRITES)) }
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

impl Kubernetes {
    /// One write that does not wait for others: what a leader stands on.
    pub async fn write_at_once<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        limited(request).await
    }
}

/// What became of a deletion with preconditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The object is gone, or going.
    Done,
    /// It is not the object that was decided upon any more: look again.
    Changed,
}

/// Which state of an object a deletion is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exactly<'a> {
    /// The object's name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its resourceVersion; absent means any.
    pub version: Option<&'a str>,
}

impl<'a> Exactly<'a> {
    /// The object as it was read.
    pub fn of(meta: &'a ObjectMeta) -> Self {
        Self {
            name: meta.name.as_deref().unwrap_or_default(),
            uid: meta.uid.as_deref().unwrap_or_default(),
            version: meta.resource_version.as_deref(),
        }
    }

    /// Whatever has been written to the object since.
    #[must_use]
    pub fn at_any_version(self) -> Self {
        Self { version: None, ..self }
    }
}

impl Kubernetes {
    /// All objects of a kind, page by page, each reduced before the next page comes.
    pub async fn pages<K, S>(&self, api: &Api<K>, reduce: impl Fn(K) -> S) -> Result<Vec<S>, Failure>
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
    ) -> Result<Vec<S>, Failure>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut parameters = ListParams::default().limit(size);
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

    /// Deletes an object if it is still the one that was decided upon: its name may be another's meanwhile. That
    /// makes it safe to ask again.
    pub async fn delete<K>(&self, api: &Api<K>, what: &Exactly<'_>) -> Result<Deletion, Failure>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let parameters = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(what.uid.to_owned()),
                resource_version: what.version.map(ToOwned::to_owned),
            }),
            ..DeleteParams::default()
        };
        match self.write(api.delete(what.name, &parameters)).await {
            Ok(_) => Ok(Deletion::Done),
            Err(failure) if failure.is_not_found() => Ok(Deletion::Done),
            Err(failure) if failure.is_conflict() => Ok(Deletion::Changed),
            Err(failure) => Err(failure),
        }
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
