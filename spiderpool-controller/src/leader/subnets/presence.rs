//! Whether an application of which no watch tells is still there: the API server is asked.

use kube::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use spiderpool_api::workload::WorkloadKind;
use spiderpool_core::names::PoolName;
use spiderpool_core::subnet::application::Application;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use tracing::warn;

/// Whether an application is still there and wants a pool of the subnet. Where that cannot be read, it does.
pub(super) async fn is_wanted(
    kube: &Kubernetes,
    subnet: &PoolName,
    pool: &PoolName,
    application: &Application,
    uid: &str,
) -> Result<bool, ApiFailure> {
    if let Some(kind) = WorkloadKind::of(application) {
        let api = kind.namespaced(kube.client(), &application.namespace);
        let found = kube.read(api.get_opt(&application.name)).await?;
        let found = found.filter(|found| found.metadata.uid.as_deref() == Some(uid));
        let wants = found.and_then(|found| kind.application(&found));
        return Ok(wants.is_some_and(|wants| wants.request.is_err() || wants.subnets().contains(subnet)));
    }
    match find(kube, application).await {
        Ok(found) => Ok(found.is_some_and(|found| found == uid)),
        Err(failure) if failure.is_forbidden() => {
            warn!(%pool, %application, %failure, "cannot see whether the pool's application is still there, the pool stays: let the controller read such objects");
            Ok(true)
        }
        Err(failure) => Err(failure),
    }
}

/// The UID of an application of whatever kind. Where the API server has no such kind any more, there is none.
async fn find(kube: &Kubernetes, application: &Application) -> Result<Option<String>, ApiFailure> {
    let Application { group, version, kind, namespace, name } = application;
    let client = kube.client();
    let listed = if group.is_empty() {
        kube.read(client.list_core_api_resources(version)).await
    } else {
        kube.read(client.list_api_group_resources(&format!("{group}/{version}"))).await
    };
    let resources = match listed {
        Err(failure) if failure.is_not_found() => return Ok(None),
        listed => listed?.resources,
    };
    // Subresources have a slash in their names.
    let served = resources.into_iter().find(|one| one.kind == *kind && !one.name.contains('/'));
    let Some(served) = served else { return Ok(None) };
    let kind = GroupVersionKind::gvk(group, version, kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, &served.name);
    let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
    let found = kube.read(api.get_metadata_opt(name)).await?;
    Ok(found.and_then(|found| found.metadata.uid))
}
