//! Reads ServiceCIDRs and kubeadm's configuration.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::ListParams;
use kube::core::{ApiResource, GroupVersionKind, Object};
use kube::{Api, Client};
use serde::Deserialize;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};

use super::kubeadm;
use super::plan::Sources;

/// The namespace and name of kubeadm's ConfigMap.
pub(super) const KUBEADM: (&str, &str) = ("kube-system", "kubeadm-config");
const KEY: &str = "ClusterConfiguration";
/// Versions in which ServiceCIDR is served, newest first: 1.33 and later, 1.31 and later.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What is read of a ServiceCIDR.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ServiceCidrSpec {
    #[serde(default)]
    cidrs: Vec<String>,
}

/// A ServiceCIDR of any version.
pub(super) type ServiceCidr = Object<ServiceCidrSpec, serde::de::IgnoredAny>;

fn api(client: Client, version: &str) -> Api<ServiceCidr> {
    let kind = GroupVersionKind::gvk("networking.k8s.io", version, "ServiceCIDR");
    Api::all_with(client, &ApiResource::from_gvk_with_plural(&kind, "servicecidrs"))
}

/// ServiceCIDRs in the version that is served, if any.
pub(super) async fn served(kube: Kubernetes) -> Result<Option<Api<ServiceCidr>>, ApiFailure> {
    for version in VERSIONS {
        let api = api(kube.client(), version);
        match kube.read(api.list(&ListParams::default().limit(1))).await {
            Ok(_) => return Ok(Some(api)),
            Err(failure) if failure.is_not_found() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(None)
}

/// Reads everything now.
pub(super) async fn read(
    kube: &Kubernetes,
    services: Option<&Api<ServiceCidr>>,
) -> Result<Sources, ApiFailure> {
    let service_cidrs = match services {
        Some(api) => Some(cidrs(&kube.read(api.list(&ListParams::default())).await?.items)),
        None => None,
    };
    let maps = Api::<ConfigMap>::namespaced(kube.client(), KUBEADM.0);
    let map = kube.read(maps.get_opt(KUBEADM.1)).await?;
    let text = map.and_then(|map| map.data).and_then(|mut data| data.remove(KEY));
    Ok(Sources { service_cidrs, kubeadm: text.as_deref().map(kubeadm::parse) })
}

/// The CIDRs of objects that are not being deleted, oldest first.
fn cidrs(objects: &[ServiceCidr]) -> Vec<String> {
    let living = objects.iter().filter(|object| object.metadata.deletion_timestamp.is_none());
    let ordered: BTreeMap<_, _> = living
        .map(|object| {
            let meta = &object.metadata;
            ((meta.creation_timestamp.as_ref().map(|at| at.0), &meta.name), &object.spec.cidrs)
        })
        .collect();
    ordered.into_values().flatten().cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn cidrs_are_ordered_by_age_and_without_those_being_deleted() {
        let object = |name: &str, created: &str, more: Value, cidrs: &[&str]| -> ServiceCidr {
            let mut meta = json!({"name": name, "creationTimestamp": created});
            meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let status = json!({"conditions": []});
            serde_json::from_value(json!({"metadata": meta, "spec": {"cidrs": cidrs}, "status": status}))
                .unwrap()
        };
        let deleting = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let objects = [
            object("new", "2026-01-03T00:00:00Z", json!({}), &["10.98.0.0/16"]),
            object("kubernetes", "2026-01-01T00:00:00Z", json!({}), &["10.96.0.0/16", "fd96::/112"]),
            object("gone", "2026-01-02T00:00:00Z", deleting, &["10.97.0.0/16"]),
        ];
        assert_eq!(cidrs(&objects), ["10.96.0.0/16", "fd96::/112", "10.98.0.0/16"]);
    }
}
