//! The node's Lease on the API server.

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use spiderpool_runtime::kubernetes::{ApiFailure, Deletion, Kubernetes, Preconditions};

/// Writes and deletes the one Lease of this name.
pub(super) struct LeaseStore {
    kube: Kubernetes,
    api: Api<Lease>,
    name: String,
    /// As last written; `None` after a write that failed.
    known: Option<ObjectMeta>,
}

impl LeaseStore {
    pub(super) fn new(kube: Kubernetes, namespace: &str, name: String) -> Self {
        Self { api: Api::namespaced(kube.client(), namespace), kube, name, known: None }
    }

    /// Creates or replaces it.
    pub(super) async fn write(&mut self, lease: &Lease) -> Result<(), ApiFailure> {
        match self.write_once(lease.clone()).await {
            // Somebody has created, changed or deleted it since it was written last.
            Err(failure)
                if failure.is_conflict() || failure.is_already_exists() || failure.is_not_found() =>
            {
                self.write_once(lease.clone()).await
            }
            outcome => outcome,
        }
    }

    async fn write_once(&mut self, mut lease: Lease) -> Result<(), ApiFailure> {
        let parameters = PostParams::default();
        let written = match self.current().await? {
            Some(current) => {
                lease.metadata.resource_version = current.resource_version;
                self.kube.write_unthrottled(self.api.replace(&self.name, &parameters, &lease)).await?
            }
            None => self.kube.write_unthrottled(self.api.create(&parameters, &lease)).await?,
        };
        self.known = Some(written.metadata);
        Ok(())
    }

    /// Deletes it, also one of an earlier agent; whether there was one.
    pub(super) async fn delete(&mut self) -> Result<bool, ApiFailure> {
        while let Some(current) = self.current().await? {
            match self.kube.delete(&self.api, &Preconditions::from_meta(&current)).await? {
                Deletion::Done => return Ok(true),
                Deletion::Changed => {}
            }
        }
        Ok(false)
    }

    /// What is known is used once: it is outdated if what follows fails.
    async fn current(&mut self) -> Result<Option<ObjectMeta>, ApiFailure> {
        match self.known.take() {
            Some(known) => Ok(Some(known)),
            None => Ok(self.kube.read(self.api.get_opt(&self.name)).await?.map(|lease| lease.metadata)),
        }
    }
}
