//! The bitmaps on the API server: loaded once, then written where they differ.

use kube::Api;
use kube::api::{ListParams, Patch, PostParams};
use serde_json::json;
use spiderpool_api::crd::SpiderIPPoolUsage;
use spiderpool_runtime::kubernetes::{ApiFailure, Deletion, Kubernetes, Preconditions};
use spiderpool_runtime::watch::Shared;

use super::usage::{BlockWrite, PoolInUse, StoredBlocks};
use crate::leader::metrics::Metrics;
use crate::leader::state::ClusterState;
use crate::patch_parameters;

/// Writes bitmaps and remembers what is stored.
pub(super) struct UsageStore {
    kube: Kubernetes,
    api: Api<SpiderIPPoolUsage>,
    stored: Shared<StoredBlocks>,
    metrics: Metrics,
}

impl UsageStore {
    /// Reads what an earlier leader has written.
    pub(super) async fn load(kube: Kubernetes, metrics: Metrics) -> Result<Self, ApiFailure> {
        let api = Api::<SpiderIPPoolUsage>::all(kube.client());
        let list = kube.read(api.list(&ListParams::default())).await?;
        let stored = Shared::new(StoredBlocks::new(&list.items));
        Ok(Self { kube, api, stored, metrics })
    }

    /// The blocks that are stored.
    pub(super) fn stored(&self) -> &Shared<StoredBlocks> {
        &self.stored
    }

    /// Writes the bitmaps of a pool that are not right.
    pub(super) async fn write(&self, state: &Shared<ClusterState>, pool: &str) -> Result<(), ApiFailure> {
        let in_use = state.read(|state| PoolInUse::of(state, pool));
        let writes = self.stored.read(|stored| stored.plan(pool, in_use.as_ref()));
        for write in writes {
            match write {
                BlockWrite::Put(object) => {
                    // A write that fails may have been done all the same.
                    let name = object.metadata.name.clone().unwrap_or_default();
                    self.stored.write(|stored| stored.mark_unknown(pool, &name));
                    self.put(&object).await?;
                    self.stored.write(|stored| stored.put(&object));
                }
                BlockWrite::Delete(name) => {
                    self.stored.write(|stored| stored.mark_unknown(pool, &name));
                    self.delete(&name).await?;
                    self.stored.write(|stored| stored.delete(pool, &name));
                }
            }
            self.metrics.pool_usage_writes.inc();
        }
        Ok(())
    }

    async fn put(&self, object: &SpiderIPPoolUsage) -> Result<(), ApiFailure> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let patch =
            Patch::Merge(json!({"metadata": {"labels": object.metadata.labels}, "spec": object.spec}));
        match self.kube.write(self.api.patch(name, &patch_parameters(), &patch)).await {
            Err(failure) if failure.is_not_found() => {
                self.kube.write(self.api.create(&PostParams::default(), object)).await.map(|_| ())
            }
            other => other.map(|_| ()),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), ApiFailure> {
        while let Some(found) = self.kube.read(self.api.get_opt(name)).await? {
            if self.kube.delete(&self.api, &Preconditions::from_meta(&found.metadata)).await?
                == Deletion::Done
            {
                break;
            }
        }
        Ok(())
    }
}
