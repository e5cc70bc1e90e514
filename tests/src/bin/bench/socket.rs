//! HTTP over an agent's unix socket.

use std::path::Path;

use anyhow::{Context as _, Result};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;

/// Sends one request on a connection of its own, as the plugins do.
pub(crate) async fn request(
    socket: &Path,
    method: Method,
    path: &str,
    body: &impl Serialize,
) -> Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await.with_context(|| socket.display().to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    drop(sender);
    driver.await?.context("connection to the agent")?;
    Ok((status, body))
}
