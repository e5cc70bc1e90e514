//! A proxy between one client of the API server and that: plain HTTP towards the client, one identity towards the server. What it
//! does to requests on the way is an [`Interference`].

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Error, Result};
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::control_plane::access;

/// An answer, whole or as it comes.
pub type Answer = Response<UnsyncBoxBody<Bytes, Error>>;

/// What a proxy does to requests.
pub trait Interference: Send + Sync + 'static {
    /// The answer to a request. An error closes the connection without one.
    fn answer(
        &self,
        server: &Server,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Answer>> + Send;
}

/// The API server behind the proxy.
pub struct Server(Client);

impl Server {
    /// Sends the request on as it is; the answer comes as the server sends it.
    pub async fn forward(&self, request: Request<Incoming>) -> Result<Answer> {
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(HOST);
        let body = Body::from(body.collect().await?.to_bytes().to_vec());
        let answer = self.0.send(Request::from_parts(parts, body)).await?;
        Ok(answer.map(|body| body.map_err(Error::from).boxed_unsync()))
    }
}

/// The running proxy. Dropping it breaks its connections.
#[derive(Debug)]
pub struct ApiProxy {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl ApiProxy {
    /// Starts a proxy with the identity of a kubeconfig file.
    pub async fn start(identity: &Path, interference: Arc<impl Interference>) -> Result<Self> {
        let server = Arc::new(Server(access::client(identity).await?));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, server, interference));
        Ok(Self { address, accepting })
    }

    /// A kubeconfig that leads to the proxy.
    pub fn kubeconfig(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join("kubeconfig");
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{}", self.address)}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "client"}}],
            "users": [{"name": "client", "user": {}}],
        });
        fs::write(&path, content.to_string()).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: Arc<Server>, interference: Arc<impl Interference>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&server), Arc::clone(&interference)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, server: Arc<Server>, interference: Arc<impl Interference>) {
    let answer = service_fn(move |request| {
        let (server, interference) = (Arc::clone(&server), Arc::clone(&interference));
        async move { interference.answer(&server, request).await }
    });
    // An error here is the broken connection that the test wants, or the client's end.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
}

/// Whether a request is a watch.
pub fn is_watch(request: &Request<Incoming>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == Method::GET && query.split('&').any(|one| one == "watch=true")
}

/// What an API server says when it refuses a request.
pub fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": reason, "code": code,
        "message": message,
    })
}

/// A whole answer.
pub fn json_answer(code: u16, content: &Value) -> Result<Answer> {
    let body = whole(content.to_string());
    Ok(Response::builder().status(code).header(CONTENT_TYPE, "application/json").body(body)?)
}

/// A body that is there.
pub fn whole(text: String) -> UnsyncBoxBody<Bytes, Error> {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed_unsync()
}
