//! The controller itself: it goes first, because it would take its Lease again and write what is deleted here.

use std::time::Instant;

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::DeleteParams;
use tracing::info;

use super::agents::LOOK;
use super::{Cleaner, gone_is_fine};

impl Cleaner {
    /// Deletes the controllers and waits until they are gone.
    pub(super) async fn remove_controller(&self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let deployments = Api::<Deployment>::namespaced(self.kube.client(), &self.namespace);
        // In the foreground: the Deployment is there as long as one of its pods is.
        gone_is_fine(self.kube.write(deployments.delete(name, &DeleteParams::foreground())).await)?;
        let end = Instant::now() + self.limit;
        while self.kube.read(deployments.get_opt(name)).await?.is_some() {
            ensure!(
                Instant::now() < end,
                "pods of Deployment {name} are still there after {:?}: delete them, then uninstall again",
                self.limit
            );
            tokio::time::sleep(LOOK).await;
        }
        info!(name, "the controllers are gone");
        Ok(())
    }
}
