//! From the texts of custom resources to what `spiderpool_core` decides on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use spiderpool_core::ipam::pool::{Pool, PoolError, PoolFields, Selectors};

use super::SpiderIPPool;

impl TryFrom<&SpiderIPPool> for Pool {
    type Error = PoolError;

    fn try_from(object: &SpiderIPPool) -> Result<Self, PoolError> {
        let (meta, spec) = (&object.metadata, &object.spec);
        let fields = PoolFields {
            name: meta.name.as_deref().unwrap_or_default(),
            ip_version: spec.ip_version,
            subnet: &spec.subnet,
            ips: &spec.ips,
            exclude_ips: &spec.exclude_ips,
            gateway: spec.gateway.as_deref(),
            node_names: &spec.node_name,
            namespace_names: &spec.namespace_name,
            selectors: Selectors {
                pod: selects(spec.pod_affinity.as_ref()),
                node: selects(spec.node_affinity.as_ref()),
                namespace: selects(spec.namespace_affinity.as_ref()),
                multus: !spec.multus_name.is_empty(),
            },
            default: spec.default,
            disable: spec.disable,
            terminating: meta.deletion_timestamp.is_some(),
        };
        Self::parse(fields, spec.routes.iter().map(|route| (route.dst.as_str(), route.gw.as_str())))
    }
}

/// A selector without a requirement matches everything, as one that is not there.
fn selects(selector: Option<&LabelSelector>) -> bool {
    selector.is_some_and(|selector| {
        let labels = selector.match_labels.as_ref().is_some_and(|labels| !labels.is_empty());
        labels || selector.match_expressions.as_ref().is_some_and(|expressions| !expressions.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pool(spec: &serde_json::Value) -> Result<Pool, String> {
        let object = json!({ "metadata": { "name": "p" }, "spec": spec });
        let object: SpiderIPPool = serde_json::from_value(object).unwrap();
        Pool::try_from(&object).map_err(|e| e.to_string())
    }

    #[test]
    fn every_field_arrives() {
        let pool = pool(&json!({
            "subnet": "10.6.0.0/16", "ips": ["10.6.0.1-10.6.0.9"], "excludeIPs": ["10.6.0.1"], "gateway": "10.6.0.1",
            "routes": [{ "dst": "10.0.0.0/8", "gw": "10.6.0.2" }], "nodeName": ["n"], "namespaceName": ["ns"],
            "nodeAffinity": { "matchLabels": { "a": "b" } }, "multusName": ["m"], "default": true, "disable": true,
        }))
        .unwrap();
        assert_eq!((pool.name.as_str(), pool.usable.len(), pool.routes.len()), ("p", 8, 1));
        assert_eq!(
            (&pool.node_names[..], &pool.namespace_names[..]),
            (&["n".to_owned()][..], &["ns".to_owned()][..])
        );
        assert_eq!(pool.selectors, Selectors { node: true, multus: true, ..Selectors::default() });
        assert!(pool.default && pool.disabled && !pool.terminating);
        assert_eq!(pool.gateway, Some("10.6.0.1".parse().unwrap()));
    }

    #[test]
    fn an_empty_selector_is_none() {
        for selector in [json!({}), json!({ "matchLabels": {}, "matchExpressions": [] })] {
            let pool = pool(&json!({
                "subnet": "10.6.0.0/16", "podAffinity": selector, "nodeAffinity": selector,
                "namespaceAffinity": selector,
            }));
            assert_eq!(pool.unwrap().selectors, Selectors::default(), "{selector}");
        }
    }

    #[test]
    fn a_pool_that_makes_no_sense_says_so() {
        let error = pool(&json!({ "subnet": "10.6.1.0/16" })).unwrap_err();
        assert_eq!(
            error,
            "IPPool p is invalid: unformatted spec.subnet 10.6.1.0/16, please change it to 10.6.0.0/16"
        );
    }
}
