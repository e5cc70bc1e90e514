//! `/v1/dataplane/*`: our own addition to upstream's API.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use spiderpool_api::agent::dataplane::{RegisterNics, RegisteredNics, UnregisterNics};
use spiderpool_api::agent::gc::GcArgs;

use super::body::JsonBody;
use super::error::Failed;
use crate::agent::Agent;

pub(super) async fn register(
    State(agent): State<Arc<Agent>>,
    JsonBody(request): JsonBody<RegisterNics>,
) -> Result<Json<RegisteredNics>, Failed> {
    Ok(Json(agent.reconciler.register(request).await?))
}

pub(super) async fn unregister(
    State(agent): State<Arc<Agent>>,
    JsonBody(attachment): JsonBody<UnregisterNics>,
) -> Result<(), Failed> {
    Ok(agent.reconciler.unregister(attachment).await?)
}

pub(super) async fn collect(
    State(agent): State<Arc<Agent>>,
    JsonBody(args): JsonBody<GcArgs>,
) -> Result<(), Failed> {
    Ok(agent.reconciler.collect_garbage(args.into()).await?)
}
