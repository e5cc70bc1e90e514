//! The end of a pool: our finalizer goes when none of its addresses is in use. What is quarantined stays so, also for a pool that
//! comes after it.

use kube::Api;
use kube::api::ListParams;
use spiderpool_api::crd::{AddressState, FINALIZER, SpiderIPAddress, SpiderIPPool};
use spiderpool_api::labels;
use spiderpool_core::ipam::address_name::label_value;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use tracing::info;

use crate::patch_parameters;

/// Removes the finalizer of the pool with this UID if it is being deleted and the API server has no address of it.
pub(super) async fn remove_when_unused(kube: &Kubernetes, name: &str, uid: &str) -> Result<(), ApiFailure> {
    let selector = format!("{}={}", labels::ADDRESS_POOL, label_value(name));
    let addresses = Api::<SpiderIPAddress>::all(kube.client());
    let list = kube.read(addresses.list(&ListParams::default().labels(&selector))).await?;
    let is_in_use = |address: &SpiderIPAddress| address.spec.state != AddressState::Quarantined;
    if list.items.iter().any(|address| address.spec.pool == name && is_in_use(address)) {
        return Ok(());
    }
    let pools = Api::<SpiderIPPool>::all(kube.client());
    let Some(pool) = kube.read(pools.get_metadata_opt(name)).await? else { return Ok(()) };
    let meta = &pool.metadata;
    if meta.uid.as_deref() != Some(uid) || meta.deletion_timestamp.is_none() {
        return Ok(());
    }
    kube.remove_finalizer(&pools, meta, FINALIZER, &patch_parameters()).await?;
    info!(pool = name, "finalizer removed");
    Ok(())
}
