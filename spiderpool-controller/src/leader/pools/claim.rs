//! Taking a pool: our finalizer, because of which a pool that is being deleted stays until none of its addresses is in use
//! (upstream's webhook sets it too), and the mark that its allocations are SpiderIPAddresses. Without the mark a later
//! leader, and every agent, would take our view of the allocations for upstream's.

use kube::Api;
use kube::Resource as _;
use kube::api::Patch;
use kube::core::ObjectMeta;
use serde_json::json;
use spiderpool_api::annotations::{POOL_ALLOCATIONS, POOL_ALLOCATIONS_ADDRESSES};
use spiderpool_api::crd::{FINALIZER, SpiderIPPool};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::pools::{AllocationOwner, PoolObject, is_marked};
use tracing::{info, warn};

use crate::leader::state::{LeaderFields, LeaderPool};
use crate::patch_parameters;

/// What a pool that we serve lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    /// Our finalizer.
    pub(super) finalizer: bool,
    /// The mark.
    pub(super) mark: bool,
}

impl Claim {
    /// What the pool lacks; `None` if it lacks nothing or upstream's agents have addresses of it.
    pub(super) fn of(pool: &LeaderPool) -> Option<Self> {
        Self::new(&pool.extra, pool.owner(), pool.is_marked())
    }

    fn new(fields: &LeaderFields, owner: AllocationOwner, is_marked: bool) -> Option<Self> {
        let claim = Self { finalizer: fields.needs_finalizer, mark: fields.is_decodable && !is_marked };
        (owner != AllocationOwner::Upstream && (claim.finalizer || claim.mark)).then_some(claim)
    }
}

/// Adds what the pool with this UID lacks, as the API server has it now. Answers whether upstream's agents have no
/// addresses of it: they may have begun to allocate since the watch has seen it.
pub(super) async fn write(kube: &Kubernetes, name: &str, uid: &str) -> Result<bool, ApiFailure> {
    let pools = Api::<PoolObject>::all(kube.client());
    let found = kube.read(pools.get_opt(name)).await?;
    let Some(pool) = found.filter(|pool| pool.meta().uid.as_deref() == Some(uid)) else { return Ok(false) };
    let (meta, owner) = (pool.meta(), AllocationOwner::of(&pool));
    let Some(claim) = Claim::new(&LeaderFields::from(&pool), owner, is_marked(meta)) else {
        return Ok(owner != AllocationOwner::Upstream);
    };
    claim.write(kube, meta).await?;
    Ok(true)
}

/// Marks a pool whose allocations by upstream's agents have all become SpiderIPAddresses. Fails if it has changed since it was
/// read: they may have written another one.
pub(super) async fn mark_imported(kube: &Kubernetes, pool: &PoolObject) -> Result<(), ApiFailure> {
    Claim { finalizer: LeaderFields::from(pool).needs_finalizer, mark: true }.write(kube, pool.meta()).await
}

impl Claim {
    /// Adds it to the pool as it was read. Others' finalizers are in the list too, and upstream's agents may begin to allocate:
    /// nothing must have changed.
    async fn write(self, kube: &Kubernetes, meta: &ObjectMeta) -> Result<(), ApiFailure> {
        let name = meta.name.as_deref().unwrap_or_default();
        let mut patch = json!({"metadata": {"resourceVersion": meta.resource_version}});
        if self.finalizer {
            let mut finalizers = meta.finalizers.clone().unwrap_or_default();
            finalizers.push(FINALIZER.to_owned());
            patch["metadata"]["finalizers"] = json!(finalizers);
        }
        if self.mark {
            patch["metadata"]["annotations"] = json!({POOL_ALLOCATIONS: POOL_ALLOCATIONS_ADDRESSES});
        }
        let pools = Api::<SpiderIPPool>::all(kube.client());
        kube.write(pools.patch_metadata(name, &patch_parameters(), &Patch::Merge(patch))).await?;
        info!(pool = name, finalizer = self.finalizer, mark = self.mark, "pool claimed");
        Ok(())
    }
}

/// Removes a mark that is not true any more, as the API server has the pool now: upstream's agents have allocated from it
/// since.
pub(super) async fn withdraw(kube: &Kubernetes, name: &str, uid: &str) -> Result<(), ApiFailure> {
    let pools = Api::<PoolObject>::all(kube.client());
    let is_outdated = |pool: &PoolObject| {
        let meta = pool.meta();
        meta.uid.as_deref() == Some(uid)
            && is_marked(meta)
            && AllocationOwner::of(pool) == AllocationOwner::Upstream
    };
    let Some(pool) = kube.read(pools.get_opt(name)).await?.filter(is_outdated) else { return Ok(()) };
    let annotations = json!({POOL_ALLOCATIONS: null});
    let patch =
        json!({"metadata": {"resourceVersion": pool.meta().resource_version, "annotations": annotations}});
    let pools = Api::<SpiderIPPool>::all(kube.client());
    kube.write(pools.patch_metadata(name, &patch_parameters(), &Patch::Merge(patch))).await?;
    warn!(pool = name, "upstream's agents have allocated from the pool since it was ours, mark removed");
    Ok(())
}
