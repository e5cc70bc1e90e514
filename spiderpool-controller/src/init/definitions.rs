//! The CustomResourceDefinitions that this binary carries. Helm installs definitions once and never changes them.

use std::time::Instant;

use anyhow::{Context as _, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use spiderpool_runtime::kubernetes::{Failure, Kubernetes};
use tracing::{info, warn};

use super::apply::RETRY;

/// Creates or replaces all of them, and waits until they are served.
pub(super) async fn apply(kube: &Kubernetes, deadline: Instant) -> anyhow::Result<()> {
    let api = Api::all(kube.client());
    for definition in spiderpool_api::crd::definitions().context("the definitions of this binary")? {
        let name = definition.metadata.name.clone().unwrap_or_default();
        loop {
            match replace_one(kube, &api, &name, &definition).await {
                Ok(true) => break info!(name, "definition is served"),
                Ok(false) => {}
                Err(error) if !error.is_retryable() && !error.is_conflict() => {
                    bail!("CustomResourceDefinition {name}: {error}");
                }
                Err(error) => warn!(name, %error, "definition not applied yet, trying again"),
            }
            if Instant::now() + RETRY >= deadline {
                bail!(
                    "CustomResourceDefinition {name} is not served, and the deadline (SPIDERPOOL_INIT_DEADLINE) is over"
                );
            }
            tokio::time::sleep(RETRY / 5).await;
        }
    }
    Ok(())
}

/// Creates or replaces one; whether it is served.
async fn replace_one(
    kube: &Kubernetes,
    api: &Api<CustomResourceDefinition>,
    name: &str,
    definition: &CustomResourceDefinition,
) -> Result<bool, Failure> {
    let parameters =
        PostParams { field_manager: Some(super::apply::MANAGER.to_owned()), ..PostParams::default() };
    let written = match kube.read(api.get_opt(name)).await? {
        None => kube.write(api.create(&parameters, definition)).await?,
        // As a whole: a field that an older version had would stay.
        Some(found) => {
            let replacement = CustomResourceDefinition {
                metadata: found.metadata,
                spec: definition.spec.clone(),
                status: found.status,
            };
            kube.write(api.replace(name, &parameters, &replacement)).await?
        }
    };
    let conditions = written.status.and_then(|status| status.conditions).unwrap_or_default();
    Ok(conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True"))
}
