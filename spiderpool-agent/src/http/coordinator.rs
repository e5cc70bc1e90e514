//! GET `/v1/coordinator/config`, with a body.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use spiderpool_api::agent::coordinator::{CoordinatorConfig, GetCoordinatorArgs};

use super::body::JsonBody;
use super::error::Failed;
use crate::agent::Agent;
use crate::coordinator::{self, CoordinatorError};

pub(super) async fn config(
    State(agent): State<Arc<Agent>>,
    JsonBody(args): JsonBody<GetCoordinatorArgs>,
) -> Result<Json<CoordinatorConfig>, Failed> {
    let started = agent.start.wait().await;
    started.map_err(|starting| Failed::with_status(StatusCode::SERVICE_UNAVAILABLE, starting))?;
    let coordinator = agent.coordinators.read(crate::watches::CoordinatorIndex::chosen);
    let coordinator = coordinator.ok_or(CoordinatorError::Missing)?;
    coordinator::check_ready(&coordinator)?;
    let pod = agent.ipam.pod(&args.pod).await.map_err(|why| {
        let text = format!("failed to get pod {}: {why}", args.pod);
        Failed::with_status(why.status(), text)
    })?;
    let nodes = agent.node_addresses.read(Clone::clone);
    let address_pools = agent.ipam.pools_of_addresses(&pod.identity.uid);
    let mut config = coordinator::config(&coordinator, &pod, nodes)?;
    coordinator::fall_back(&mut config.settings, &agent.fallback);
    Ok(Json(CoordinatorConfig { address_pools, ..config }))
}
