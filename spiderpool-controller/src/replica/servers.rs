//! The servers of every replica: health probes and metrics.

use std::sync::Arc;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use spiderpool_runtime::health::Health;
use spiderpool_runtime::http::{self, Limits};
use spiderpool_runtime::metrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::config::Environment;

/// Binds the ports and serves them until shutdown, each in a task.
pub(super) async fn start(
    environment: &Environment,
    health: &Health,
    registry: Registry,
    shutdown: &CancellationToken,
) -> anyhow::Result<Vec<JoinHandle<()>>> {
    // Not the loopback alone: in a network of its own the pod is asked by its address.
    let probes = http::bind_all(environment.health_port).await;
    let probes = probes.with_context(|| format!("port {} of the health probes", environment.health_port))?;
    info!(address = %probes.local_addr()?, "health probes are served");
    let mut servers =
        vec![tokio::spawn(http::serve(probes, health.router(), Limits::PORT, shutdown.clone()))];
    if environment.enabled_metric {
        let port = environment.metric_http_port;
        let listener = http::bind_all(port).await.with_context(|| format!("port {port} of the metrics"))?;
        info!(address = %listener.local_addr()?, "metrics are served");
        let router = metrics::router(Arc::new(registry));
        servers.push(tokio::spawn(http::serve(listener, router, Limits::PORT, shutdown.clone())));
    }
    Ok(servers)
}
