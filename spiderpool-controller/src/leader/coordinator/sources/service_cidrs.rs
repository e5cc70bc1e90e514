//! ServiceCIDR objects of `networking.k8s.io`.

use kube::core::Object;
use serde::Deserialize;

use super::age::sort_by_age;
use crate::leader::coordinator::cidrs::Cidrs;

/// What is read of a ServiceCIDR.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceCidrSpec {
    cidrs: Vec<String>,
}

/// A ServiceCIDR of any version.
pub(crate) type ServiceCidr = Object<Option<ServiceCidrSpec>, serde::de::IgnoredAny>;

/// The CIDRs, oldest object first. One that is being deleted stays until no Service has an address of it.
pub(crate) fn cidrs(mut objects: Vec<ServiceCidr>) -> Cidrs {
    sort_by_age(&mut objects, |object| &object.metadata);
    let mut cidrs = Cidrs::default();
    for object in objects {
        let name = format!("ServiceCIDR {}", object.metadata.name.unwrap_or_default());
        for (index, cidr) in object.spec.unwrap_or_default().cidrs.iter().enumerate() {
            cidrs.add(&name, format!("spec.cidrs[{index}]"), cidr);
        }
    }
    cidrs
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Upstream drops one that is being deleted, whose Services work until they are gone (its finalizer sees to that).
    #[test]
    fn cidrs_are_ordered_by_age_and_count_until_they_are_gone() {
        let object = |name: &str, created: &str, more: Value, cidrs: &[&str]| -> ServiceCidr {
            let mut meta = json!({"name": name, "creationTimestamp": created});
            meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let status = json!({"conditions": []});
            serde_json::from_value(json!({"metadata": meta, "spec": {"cidrs": cidrs}, "status": status}))
                .unwrap()
        };
        let deleting = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let objects = vec![
            object("new", "2026-01-03T00:00:00Z", json!({}), &["10.98.0.0/16"]),
            object("kubernetes", "2026-01-01T00:00:00Z", json!({}), &["10.96.0.0/16", "fd96::/112"]),
            object("leaving", "2026-01-02T00:00:00Z", deleting, &["10.97.0.0/16"]),
        ];
        assert_eq!(cidrs(objects).texts(), ["10.96.0.0/16", "fd96::/112", "10.97.0.0/16", "10.98.0.0/16"]);
    }
}
