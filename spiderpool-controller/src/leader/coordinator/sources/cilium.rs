//! Cilium's ConfigMap, and its CiliumPodIPPools.

use std::collections::BTreeMap;
use std::fmt;

use kube::core::Object;
use serde::Deserialize;

use super::age::sort_by_age;
use crate::leader::coordinator::cidrs::Cidrs;

const IPV4_POOL: &str = "cluster-pool-ipv4-cidr";
const IPV6_POOL: &str = "cluster-pool-ipv6-cidr";

/// Where Cilium takes pods' addresses from: the key `ipam`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ipam {
    /// `cluster-pool` (the default of Cilium and of its chart), `cluster-pool-v2beta`: the keys of the ConfigMap.
    ClusterPool,
    /// `multi-pool`: CiliumPodIPPools.
    MultiPool,
    /// `kubernetes`: the pod CIDRs of the nodes.
    Kubernetes,
    /// A cloud, or another plugin: nothing in the cluster names the CIDRs.
    Other(String),
}

impl From<&str> for Ipam {
    fn from(text: &str) -> Self {
        match text {
            "" | "cluster-pool" | "cluster-pool-v2beta" => Self::ClusterPool,
            "multi-pool" => Self::MultiPool,
            "kubernetes" => Self::Kubernetes,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// What is read of the ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CiliumConfig {
    pub(crate) ipam: Ipam,
    /// The cluster's pools, of the families that are switched on.
    pub(crate) pools: Cidrs,
    /// The mode, if Cilium only follows another plugin that gives the addresses (`cni-chaining-mode`).
    pub(crate) chained: Option<String>,
}

/// Reads the ConfigMap's data; `object` is its name in findings.
pub(crate) fn parse(object: &str, data: &BTreeMap<String, String>) -> CiliumConfig {
    let value = |key: &str| data.get(key).map_or("", |value| value.trim());
    let mut pools = Cidrs::default();
    for (pool, switch) in [(IPV4_POOL, "enable-ipv4"), (IPV6_POOL, "enable-ipv6")] {
        if value(switch) != "false" {
            pools.add_list(object, &format!("data.{pool}"), value(pool));
        }
    }
    let chained = match value("cni-chaining-mode") {
        // portmap follows Cilium, not the other way round.
        "" | "none" | "portmap" => None,
        mode => Some(mode.to_owned()),
    };
    CiliumConfig { ipam: value("ipam").into(), pools, chained }
}

/// A CiliumPodIPPool of either version.
pub(crate) type PodIpPool = Object<Option<PodIpPoolSpec>, serde::de::IgnoredAny>;

/// What is read of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIpPoolSpec {
    ipv4: Option<FamilySpec>,
    ipv6: Option<FamilySpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct FamilySpec {
    cidrs: Vec<PoolCidr>,
}

/// A text in v2alpha1, an object in v2.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum PoolCidr {
    Text(String),
    Object { cidr: String },
}

impl fmt::Display for PoolCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(cidr) | Self::Object { cidr } => f.write_str(cidr),
        }
    }
}

/// The CIDRs of all pools, oldest pool first.
pub(crate) fn cidrs(mut pools: Vec<PodIpPool>) -> Cidrs {
    sort_by_age(&mut pools, |pool| &pool.metadata);
    let mut cidrs = Cidrs::default();
    for pool in pools {
        let object = format!("CiliumPodIPPool {}", pool.metadata.name.unwrap_or_default());
        let PodIpPoolSpec { ipv4, ipv6 } = pool.spec.unwrap_or_default();
        for (family, spec) in [("ipv4", ipv4), ("ipv6", ipv6)] {
            for (index, cidr) in spec.unwrap_or_default().cidrs.iter().enumerate() {
                cidrs.add(&object, format!("spec.{family}.cidrs[{index}]"), &cidr.to_string());
            }
        }
    }
    cidrs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(data: &[(&str, &str)]) -> CiliumConfig {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        parse("ConfigMap kube-system/cilium-config", &data)
    }

    fn fixture(text: &str) -> CiliumConfig {
        let map: k8s_openapi::api::core::v1::ConfigMap = serde_norway::from_str(text).unwrap();
        parse("ConfigMap kube-system/cilium-config", &map.data.unwrap())
    }

    /// As the charts of these versions write them.
    #[test]
    fn config_maps_of_the_charts() {
        let old = fixture(include_str!("fixtures/cilium-v1.14.yaml"));
        assert_eq!((old.ipam, old.chained), (Ipam::ClusterPool, None));
        assert_eq!(old.pools.texts(), ["10.0.0.0/8"], "the chart's default");
        let new = fixture(include_str!("fixtures/cilium-v1.18.yaml"));
        assert_eq!((new.ipam, new.chained), (Ipam::ClusterPool, None));
        assert_eq!(new.pools.texts(), ["10.244.0.0/16", "10.245.0.0/16", "fd00::/104"]);
        let chained = fixture(include_str!("fixtures/cilium-v1.17-on-calico.yaml"));
        assert_eq!(chained.chained.as_deref(), Some("generic-veth"));
    }

    /// Upstream takes each value for one CIDR.
    #[test]
    fn lists_are_separated_by_spaces_or_commas() {
        let pools = config(&[
            ("ipam", "cluster-pool-v2beta"),
            (IPV4_POOL, "10.1.0.0/16 10.2.0.0/16,10.3.0.0/16"),
            (IPV6_POOL, " fd00::/104 "),
        ]);
        assert_eq!(pools.ipam, Ipam::ClusterPool);
        assert_eq!(pools.pools.texts(), ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "fd00::/104"]);
        let bad = config(&[(IPV4_POOL, "10.1.0.0/16 ten")]).pools;
        assert_eq!((bad.texts().len(), bad.invalid.len()), (1, 1));
        assert!(
            bad.invalid[0].to_string().contains("kube-system/cilium-config: data.cluster-pool-ipv4-cidr")
        );
    }

    #[test]
    fn absent_keys_mean_what_cilium_takes_them_for() {
        assert_eq!(config(&[]).ipam, Ipam::ClusterPool);
        assert!(config(&[]).pools.nets.is_empty());
        let off = config(&[("enable-ipv6", "false"), (IPV6_POOL, "fd00::/104"), (IPV4_POOL, "10.0.0.0/8")]);
        assert_eq!(off.pools.texts(), ["10.0.0.0/8"]);
        for mode in ["none", "portmap"] {
            assert_eq!(config(&[("cni-chaining-mode", mode)]).chained, None);
        }
        assert_eq!(config(&[("ipam", "multi-pool")]).ipam, Ipam::MultiPool);
        assert_eq!(config(&[("ipam", "kubernetes")]).ipam, Ipam::Kubernetes);
        for mode in ["eni", "azure", "alibabacloud", "crd", "delegated-plugin"] {
            assert_eq!(config(&[("ipam", mode)]).ipam, Ipam::Other(mode.to_owned()));
        }
    }

    const POOLS: &str = "
apiVersion: cilium.io/v2alpha1
kind: CiliumPodIPPool
metadata: {name: default, creationTimestamp: '2026-01-02T00:00:00Z'}
spec: {ipv4: {cidrs: [10.10.0.0/16, 10.11.0.0/16], maskSize: 27}, ipv6: {cidrs: ['fd00:10::/104'], maskSize: 120}}
---
apiVersion: cilium.io/v2
kind: CiliumPodIPPool
metadata: {name: older, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  ipv4: {cidrs: [{cidr: 10.20.0.0/16, reservedRange: 10.20.0.1-10.20.0.9}, {cidr: wrong}], maskSize: 24}
  podSelector: {matchLabels: {a: b}}
";

    /// v2 has objects where v2alpha1 has texts.
    #[test]
    fn pools_of_both_versions_are_read() {
        let documents = serde_norway::Deserializer::from_str(POOLS);
        let cidrs = cidrs(documents.map(|one| PodIpPool::deserialize(one).unwrap()).collect());
        assert_eq!(cidrs.texts(), ["10.20.0.0/16", "10.10.0.0/16", "10.11.0.0/16", "fd00:10::/104"]);
        let invalid = cidrs.invalid[0].to_string();
        assert!(
            invalid.starts_with("CiliumPodIPPool older: spec.ipv4.cidrs[1]: Invalid value: \"wrong\""),
            "{invalid}"
        );
    }
}
