//! `/v1/ipam/*`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use spiderpool_api::agent::gc::GcArgs;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamAddResponse, IpamBatchDelArgs, IpamDelArgs};

use super::body::JsonBody;
use super::error::Failed;
use crate::agent::Agent;
use crate::announce::Announcement;

/// The agent answers.
pub(super) async fn healthy() {}

/// POST `/ipam/ips`: part of upstream's API, without effect there too.
pub(super) async fn nothing() {}

pub(super) async fn allocate(
    State(agent): State<Arc<Agent>>,
    JsonBody(args): JsonBody<IpamAddArgs>,
) -> Result<Json<IpamAddResponse>, Failed> {
    let answer = agent.ipam.allocate(args.clone()).await;
    let answer = answer.map_err(|error| Failed::with_status(error.status(), error))?;
    match Announcement::new(&args, &answer.ips) {
        Some(announcement) if answer.announce == Some(false) => {
            agent.ipam.announce_later(args.pod_uid.as_ref(), announcement);
        }
        // Nobody waits for it.
        Some(announcement) => drop(tokio::task::spawn_blocking(move || announcement.send())),
        None => {}
    }
    Ok(Json(answer))
}

pub(super) async fn release(
    State(agent): State<Arc<Agent>>,
    JsonBody(args): JsonBody<IpamDelArgs>,
) -> Result<(), Failed> {
    agent.ipam.release(args).await.map_err(|error| Failed::with_status(error.status(), error))
}

pub(super) async fn collect(
    State(agent): State<Arc<Agent>>,
    JsonBody(args): JsonBody<GcArgs>,
) -> Result<(), Failed> {
    let collected = agent.ipam.collect_garbage(args.into()).await;
    collected.map_err(|error| Failed::with_status(error.status(), error))
}

pub(super) async fn release_all(
    State(agent): State<Arc<Agent>>,
    JsonBody(args): JsonBody<IpamBatchDelArgs>,
) -> Result<(), Failed> {
    agent.ipam.release_all(args).await.map_err(|error| Failed::with_status(error.status(), error))
}
