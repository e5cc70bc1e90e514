//! The CRDs of our kinds.

use std::time::Instant;

use anyhow::{bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use spiderpool_api::crd::crds;
use spiderpool_runtime::kubernetes::Preconditions;
use tracing::info;

use super::Cleaner;
use super::objects::ADDRESSES;
use super::workloads::POLL;

impl Cleaner {
    /// Deletes them and waits until they are gone; that of addresses stays if `keep_addresses`.
    pub(super) async fn remove_crds(&self, keep_addresses: bool) -> anyhow::Result<()> {
        let api = Api::<CustomResourceDefinition>::all(self.kube.client());
        let (mut deleted, mut problems) = (Vec::new(), Vec::new());
        for crd in crds()? {
            if keep_addresses && crd.spec.names.plural == ADDRESSES {
                continue;
            }
            let name = crd.metadata.name.unwrap_or_default();
            let outcome = match self.kube.read(api.get_opt(&name)).await {
                Ok(None) => continue,
                Ok(Some(found)) => {
                    self.kube.delete(&api, &Preconditions::from_meta(&found.metadata).at_any_version()).await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(_) => deleted.push(name),
                Err(error) => problems.push(format!("{name}: {error}")),
            }
        }
        let end = Instant::now() + self.limit;
        for name in &deleted {
            while self.kube.read(api.get_opt(name)).await?.is_some() {
                ensure!(
                    Instant::now() < end,
                    "{name} is not gone after {:?}: an object of this kind has a finalizer of another controller",
                    self.limit
                );
                tokio::time::sleep(POLL).await;
            }
        }
        info!(deleted = deleted.len(), "CRDs deleted");
        if !problems.is_empty() {
            bail!("{}", problems.join(", "));
        }
        Ok(())
    }
}
