//! From the texts of custom resources to what `spiderpool_core` decides on.

use spiderpool_core::ip::{Family, IpRangeError, IpSet};
use spiderpool_core::ipam::pool::{self, Pool, PoolError, PoolFields, Selectors};

use super::{SpiderIPPool, SpiderReservedIP};

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
                pod: spec.pod_affinity.is_some(),
                node: spec.node_affinity.is_some(),
                namespace: spec.namespace_affinity.is_some(),
                multus: !spec.multus_name.is_empty(),
            },
            default: spec.default,
            disable: spec.disable,
            terminating: meta.deletion_timestamp.is_some(),
        };
        Self::parse(fields, spec.routes.iter().map(|route| (route.dst.as_str(), route.gw.as_str())))
    }
}

/// The addresses of a family that no pod gets. An object that is being deleted reserves nothing any more; one that
/// does not parse is returned by name, because ignoring it would hand out what it reserves.
pub fn reserved_addresses<'a>(
    family: Family,
    objects: impl IntoIterator<Item = &'a SpiderReservedIP>,
) -> Result<IpSet, (String, IpRangeError)> {
    let mut all = IpSet::empty(family);
    for object in objects.into_iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
        let texts = object.spec.ips.iter().map(String::as_str);
        let set = pool::parse_reserved(family, texts)
            .map_err(|error| (object.metadata.name.clone().unwrap_or_default(), error))?;
        all = all.union(&set);
    }
    Ok(all)
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
            "nodeAffinity": {}, "multusName": ["m"], "default": true, "disable": true,
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
    fn a_pool_that_makes_no_sense_says_so() {
        let error = pool(&json!({ "subnet": "10.6.1.0/16" })).unwrap_err();
        assert_eq!(
            error,
            "IPPool p is invalid: unformatted spec.subnet 10.6.1.0/16, please change it to 10.6.0.0/16"
        );
    }

    #[test]
    fn reserved_addresses_of_all_objects() {
        let object = |value| serde_json::from_value::<SpiderReservedIP>(value).unwrap();
        let mut objects = vec![
            object(json!({ "metadata": { "name": "a" }, "spec": { "ips": ["10.6.0.1-10.6.0.3"] } })),
            object(
                json!({ "metadata": { "name": "b" }, "spec": { "ips": ["10.6.0.3-10.6.0.4", "fd00::1"] } }),
            ),
            object(json!({
                "metadata": { "name": "c", "deletionTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "ips": ["10.6.0.9"] },
            })),
        ];
        assert_eq!(reserved_addresses(Family::V4, &objects).unwrap().len(), 4);
        assert_eq!(reserved_addresses(Family::V6, &objects).unwrap().len(), 1);
        objects.push(object(json!({ "metadata": { "name": "bad" }, "spec": { "ips": ["x"] } })));
        assert_eq!(reserved_addresses(Family::V4, &objects).unwrap_err().0, "bad");
    }
}
