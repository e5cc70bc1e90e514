//! The HTTP API on the unix socket.

mod body;
mod coordinator;
mod dataplane;
mod endpoint;
mod error;
mod ipam;
mod socket;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post, put};
use spiderpool_api::agent::path;

use crate::agent::Agent;
use error::{ErrorResponse, Failed};

pub(crate) use socket::bind;

/// All operations.
pub(crate) fn router(agent: Arc<Agent>) -> Router {
    Router::new()
        .route(path::HEALTHY, get(ipam::healthy))
        .route(path::IP, post(ipam::allocate).delete(ipam::release))
        .route(path::IPS, post(ipam::nothing).delete(ipam::release_all))
        .route(path::IPAM_GC, post(ipam::collect))
        .route(path::COORDINATOR_CONFIG, get(coordinator::config))
        .route(path::WORKLOAD_ENDPOINT, get(endpoint::of_pod))
        .route(path::DATAPLANE_NICS, put(dataplane::register).delete(dataplane::unregister))
        .route(path::DATAPLANE_GC, post(dataplane::collect))
        .route("/v1/runtime/startup", get(async || not_implemented("GetRuntimeStartup")))
        .route("/v1/runtime/readiness", get(async || not_implemented("GetRuntimeReadiness")))
        .route("/v1/runtime/liveness", get(async || not_implemented("GetRuntimeLiveness")))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(agent)
}

/// Upstream answers this too: its probes are served on another port.
fn not_implemented(operation: &str) -> Failed {
    let text = format!("operation runtime.{operation} has not yet been implemented");
    Failed::with_status(StatusCode::NOT_IMPLEMENTED, text)
}

async fn not_found(uri: Uri) -> ErrorResponse {
    ErrorResponse::new(StatusCode::NOT_FOUND, 404, format!("path {} was not found", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> ErrorResponse {
    let message = format!("method {method} is not allowed for path {}", uri.path());
    ErrorResponse::new(StatusCode::METHOD_NOT_ALLOWED, 405, message)
}
