//! The CustomResourceDefinitions that this binary carries. Helm installs CRDs once and never changes them.

use std::time::Instant;

use anyhow::{Context as _, anyhow};
use backon::Retryable as _;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition,
};
use kube::Api;
use kube::api::PostParams;
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use thiserror::Error;
use tracing::{debug, info, warn};

use super::apply::MANAGER;

/// Why a CRD is not served.
#[derive(Debug, Error)]
enum CrdError {
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] ApiFailure),
    /// The API server has it, and does not serve its objects yet.
    #[error("it is not established yet")]
    NotEstablished,
}

impl CrdError {
    fn is_temporary(&self) -> bool {
        match self {
            Self::Write(failure) => failure.is_retryable() || failure.is_conflict(),
            Self::NotEstablished => true,
        }
    }
}

/// What is done with a CRD that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    /// It is ours: it becomes what this binary has.
    Replace,
    /// Others define it as well, and may have a newer one.
    Leave,
}

/// The CRD of Multus' networks, as Helm installs it with the first release.
const NETWORKS: &str =
    include_str!("../../../charts/spiderpool/crds/k8s.cni.cncf.io_network-attachment-definitions.yaml");

/// Creates or replaces all of them, and waits until they are served.
pub(super) async fn apply(kube: &Kubernetes, deadline: Instant) -> anyhow::Result<()> {
    let api = Api::all(kube.client());
    let networks: CustomResourceDefinition =
        serde_norway::from_str(NETWORKS).context("the CRD of NetworkAttachmentDefinition")?;
    let ours = spiderpool_api::crd::crds().context("the CRDs of this binary")?;
    let ours = ours.into_iter().map(|crd| (crd, Existing::Replace));
    for (crd, existing) in ours.chain([(networks, Existing::Leave)]) {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let replace = || replace_one(kube, &api, &name, &crd, existing);
        let replaced = replace.retry(backoff::until(deadline)).when(CrdError::is_temporary);
        let replaced = replaced.notify(|error, pause| match error {
            CrdError::NotEstablished => debug!(name, ?pause, "CRD is not established yet"),
            CrdError::Write(error) => {
                warn!(name, %error, ?pause, "CRD not applied yet, trying again");
            }
        });
        replaced.await.map_err(|error| {
            let over = if error.is_temporary() {
                ", and the deadline (SPIDERPOOL_INIT_DEADLINE) is over"
            } else {
                ""
            };
            anyhow!("CustomResourceDefinition {name}: {error}{over}")
        })?;
        info!(name, "CRD is served");
    }
    Ok(())
}

/// Creates or replaces one that is then served.
async fn replace_one(
    kube: &Kubernetes,
    api: &Api<CustomResourceDefinition>,
    name: &str,
    crd: &CustomResourceDefinition,
    existing: Existing,
) -> Result<(), CrdError> {
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let written = match kube.read(api.get_opt(name)).await? {
        None => kube.write(api.create(&parameters, crd)).await?,
        Some(found) if existing == Existing::Leave => found,
        // As a whole: a field that an older version had would stay.
        Some(found) => {
            let replacement = CustomResourceDefinition {
                metadata: found.metadata,
                spec: crd.spec.clone(),
                status: found.status,
            };
            kube.write(api.replace(name, &parameters, &replacement)).await?
        }
    };
    let conditions = written.status.and_then(|status| status.conditions).unwrap_or_default();
    let is_established =
        |one: &CustomResourceDefinitionCondition| one.type_ == "Established" && one.status == "True";
    if conditions.iter().any(is_established) { Ok(()) } else { Err(CrdError::NotEstablished) }
}
