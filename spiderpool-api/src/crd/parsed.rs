//! From the texts of custom resources to what `spiderpool_core` decides on.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use spiderpool_core::ipam::pool::{Pool, PoolError, PoolFields};
use spiderpool_core::label_selector::{ExpressionFields, SelectorFields};
use spiderpool_core::subnet::{Subnet, SubnetError};

use super::{SpiderIPPool, SpiderSubnet};

impl TryFrom<&SpiderIPPool> for Pool {
    type Error = PoolError;

    fn try_from(object: &SpiderIPPool) -> Result<Self, PoolError> {
        Self::parse(&pool_fields(object))
    }
}

impl TryFrom<&SpiderSubnet> for Subnet {
    type Error = SubnetError;

    fn try_from(object: &SpiderSubnet) -> Result<Self, SubnetError> {
        Self::parse(&subnet_fields(object))
    }
}

/// The members of a subnet that decide: some of a pool's.
pub fn subnet_fields(object: &SpiderSubnet) -> PoolFields<'_> {
    let (meta, spec) = (&object.metadata, &object.spec);
    PoolFields {
        name: meta.name.as_deref().unwrap_or_default(),
        ip_version: spec.ip_version,
        subnet: &spec.subnet,
        ips: &spec.ips,
        exclude_ips: &spec.exclude_ips,
        gateway: spec.gateway.as_deref(),
        routes: spec.routes.iter().map(|route| (route.dst.as_str(), route.gw.as_str())).collect(),
        ..PoolFields::default()
    }
}

/// The members of a pool that decide.
pub fn pool_fields(object: &SpiderIPPool) -> PoolFields<'_> {
    let (meta, spec) = (&object.metadata, &object.spec);
    PoolFields {
        name: meta.name.as_deref().unwrap_or_default(),
        ip_version: spec.ip_version,
        subnet: &spec.subnet,
        ips: &spec.ips,
        exclude_ips: &spec.exclude_ips,
        gateway: spec.gateway.as_deref(),
        routes: spec.routes.iter().map(|route| (route.dst.as_str(), route.gw.as_str())).collect(),
        pod_affinity: spec.pod_affinity.as_ref().map(selector_fields),
        namespace_affinity: spec.namespace_affinity.as_ref().map(selector_fields),
        namespace_names: &spec.namespace_name,
        node_affinity: spec.node_affinity.as_ref().map(selector_fields),
        node_names: &spec.node_name,
        multus_names: &spec.multus_name,
        default: spec.default,
        disable: spec.disable,
    }
}

fn selector_fields(selector: &LabelSelector) -> SelectorFields<'_> {
    let expressions = selector.match_expressions.iter().flatten();
    SelectorFields {
        match_labels: selector.match_labels.as_ref(),
        match_expressions: expressions
            .map(|expression| ExpressionFields {
                key: &expression.key,
                operator: &expression.operator,
                values: expression.values.as_deref().unwrap_or_default(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use kube::core::{Selector, SelectorExt as _};
    use serde_json::json;
    use spiderpool_core::ipam::pool::Affinities;

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
            "nodeAffinity": {
                "matchLabels": { "a": "b" }, "matchExpressions": [{ "key": "c", "operator": "In", "values": ["d"] }],
            },
            "multusName": ["m"], "default": true, "disable": true,
        }))
        .unwrap();
        assert_eq!((pool.name.as_str(), pool.usable.len(), pool.routes.len()), ("p", 8, 1));
        assert_eq!(
            (&pool.node_names[..], &pool.namespace_names[..]),
            (&["n".to_owned()][..], &["ns".to_owned()][..])
        );
        let node_affinity = pool.affinities.node.as_ref().unwrap();
        let labels = |value: &str| {
            BTreeMap::from([("a".to_owned(), value.to_owned()), ("c".to_owned(), "d".to_owned())])
        };
        assert!(node_affinity.matches(&labels("b")) && !node_affinity.matches(&labels("x")));
        assert_eq!((&pool.affinities.pod, &pool.affinities.namespace), (&None, &None));
        assert_eq!(pool.multus_names, ["m"]);
        assert!(pool.default && pool.disabled);
        assert_eq!(pool.gateway, Some("10.6.0.1".parse().unwrap()));
    }

    #[test]
    fn every_field_of_a_subnet_arrives() {
        let object: SpiderSubnet = serde_json::from_value(json!({
            "metadata": { "name": "s" },
            "spec": {
                "subnet": "10.6.0.0/16", "ips": ["10.6.0.1-10.6.0.9"], "excludeIPs": ["10.6.0.1"],
                "gateway": "10.6.0.1", "routes": [{ "dst": "10.0.0.0/8", "gw": "10.6.0.2" }],
            },
        }))
        .unwrap();
        let subnet = Subnet::try_from(&object).unwrap();
        assert_eq!((subnet.name.as_str(), subnet.usable.len(), subnet.routes.len()), ("s", 8, 1));
        assert_eq!(subnet.gateway, Some("10.6.0.1".parse().unwrap()));
    }

    #[test]
    fn an_empty_selector_is_none() {
        for selector in [json!({}), json!({ "matchLabels": {}, "matchExpressions": [] })] {
            let pool = pool(&json!({
                "subnet": "10.6.0.0/16", "podAffinity": selector, "nodeAffinity": selector,
                "namespaceAffinity": selector,
            }));
            assert_eq!(pool.unwrap().affinities, Affinities::default(), "{selector}");
        }
    }

    /// kube's selectors are another implementation of the same rules.
    #[test]
    fn affinities_match_what_kubes_selectors_match() {
        let keys = ["a", "b"];
        let values = ["", "x", "y"];
        let mut selectors = Vec::new();
        for key in keys {
            selectors.extend(values.map(|value| json!({ "matchLabels": { key: value } })));
            for operator in ["Exists", "DoesNotExist"] {
                selectors.push(json!({ "matchExpressions": [{ "key": key, "operator": operator }] }));
            }
            for (operator, values) in [("In", &values[..2]), ("NotIn", &values[..2]), ("NotIn", &values[2..])]
            {
                let expression = json!({ "key": key, "operator": operator, "values": values });
                selectors.push(json!({ "matchLabels": { "a": "x" }, "matchExpressions": [expression] }));
                selectors
                    .push(json!({ "matchExpressions": [expression, { "key": "b", "operator": "Exists" }] }));
            }
        }
        let mut outcomes = BTreeSet::new();
        for selector in selectors {
            let pool = pool(&json!({ "subnet": "10.6.0.0/16", "podAffinity": selector })).unwrap();
            let ours = pool.affinities.pod.unwrap();
            let object: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            let kubes = Selector::try_from(object).unwrap();
            for a in [None, Some(""), Some("x"), Some("y")] {
                for b in [None, Some(""), Some("x"), Some("y")] {
                    let labels: BTreeMap<_, _> = [("a", a), ("b", b)]
                        .into_iter()
                        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
                        .collect();
                    assert_eq!(ours.matches(&labels), kubes.matches(&labels), "{selector} {labels:?}");
                    outcomes.insert(ours.matches(&labels));
                }
            }
        }
        assert_eq!(outcomes.len(), 2);
    }

    #[test]
    fn an_affinity_that_is_no_selector_is_a_fault_of_the_pool() {
        let expression = json!({ "key": "a", "operator": "Is", "values": [] });
        let error = pool(&json!({
            "subnet": "10.6.0.0/16", "namespaceAffinity": { "matchExpressions": [expression] },
        }))
        .unwrap_err();
        assert!(
            error.starts_with(
                "IPPool p is invalid: spec.namespaceAffinity.matchExpressions[0].operator: \"Is\""
            ),
            "{error}"
        );
    }

    #[test]
    fn an_invalid_pool_names_the_field() {
        let error = pool(&json!({ "subnet": "10.6.1.0/16" })).unwrap_err();
        assert_eq!(
            error,
            "IPPool p is invalid: spec.subnet: unformatted subnet 10.6.1.0/16, please change it to 10.6.0.0/16"
        );
    }
}
