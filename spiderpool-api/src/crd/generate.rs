//! The CustomResourceDefinitions that are made from the types, as objects and as the chart's YAML files.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

use super::{
    SpiderCoordinator, SpiderEndpoint, SpiderIPAddress, SpiderIPPool, SpiderIPPoolUsage, SpiderMultusConfig,
    SpiderReservedIP, SpiderSubnet,
};

/// The CRDs of all kinds, by name.
pub fn crds() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    let mut all = vec![
        SpiderCoordinator::crd(),
        endpoint(),
        SpiderIPAddress::crd(),
        SpiderIPPool::crd(),
        SpiderIPPoolUsage::crd(),
        SpiderMultusConfig::crd(),
        SpiderReservedIP::crd(),
        SpiderSubnet::crd(),
    ];
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    all.into_iter()
        .map(|crd| {
            let mut value = serde_json::to_value(crd)?;
            refuse_null(&mut value);
            serde_json::from_value(value)
        })
        .collect()
}

/// An endpoint's status is written with the object, as upstream's agents do it.
fn endpoint() -> CustomResourceDefinition {
    let mut crd = SpiderEndpoint::crd();
    for version in &mut crd.spec.versions {
        version.subresources = None;
    }
    crd
}

/// The derive lets every optional field be `null`. Upstream's CRDs do not: there, `null` takes the default.
fn refuse_null(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("nullable");
            members.values_mut().for_each(refuse_null);
        }
        Value::Array(items) => items.iter_mut().for_each(refuse_null),
        _ => {}
    }
}

/// The file in `charts/spiderpool/crds` for a CRD: `GROUP_PLURAL.yaml`.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

#[cfg(test)]
mod tests;
