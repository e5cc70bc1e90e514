//! A pool that is being deleted goes when nothing of it is in use.

use kube::Api;
use kube::api::{ListParams, Patch};
use serde_json::json;
use spiderpool_api::crd::{FINALIZER, SpiderIPAddress, SpiderIPPool};
use spiderpool_api::labels;
use spiderpool_core::ipam::address_name::label_value;
use spiderpool_runtime::kubernetes::{Failure, Kubernetes};
use tracing::info;

use crate::patch_parameters;

/// Takes our finalizer from a pool that is being deleted, if the API server has no address of it.
pub(super) async fn remove_when_unused(kube: &Kubernetes, name: &str, uid: &str) -> Result<(), Failure> {
    let selector = format!("{}={}", labels::ADDRESS_POOL, label_value(name));
    let addresses = Api::<SpiderIPAddress>::all(kube.client());
    let list = kube.read(addresses.list(&ListParams::default().labels(&selector))).await?;
    if list.items.iter().any(|address| address.spec.pool == name) {
        return Ok(());
    }
    let pools = Api::<SpiderIPPool>::all(kube.client());
    let Some(pool) = kube.read(pools.get_opt(name)).await? else { return Ok(()) };
    let meta = &pool.metadata;
    if meta.uid.as_deref() != Some(uid) || meta.deletion_timestamp.is_none() {
        return Ok(());
    }
    let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|one| *one != FINALIZER).collect();
    let version = &meta.resource_version;
    let patch =
        Patch::Merge(json!({"metadata": {"uid": uid, "resourceVersion": version, "finalizers": left}}));
    match kube.write(pools.patch(name, &patch_parameters(), &patch)).await {
        Err(failure) if !failure.is_not_found() => Err(failure),
        _ => {
            info!(pool = name, "the pool is not in use any more and goes");
            Ok(())
        }
    }
}
