//! The configuration file, `conf.yml` of the ConfigMap `spiderpool-conf`, as far as the controller reads it. Keys that
//! only the agent reads are not listed here.

use serde::Deserialize;
use spiderpool_core::Unsupported;
use spiderpool_core::admission::Families;
use spiderpool_core::ipam::KeptWorkloads;
use spiderpool_runtime::config_file::{Content, null_as_default};

/// What the controller reads of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
    #[serde(rename = "enableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "enableIPv6")]
    enable_ipv6: Option<bool>,
    /// Whether the pods of StatefulSets keep their addresses.
    #[serde(deserialize_with = "null_as_default")]
    enable_stateful_set: bool,
    /// Whether virtual machines keep their addresses.
    #[serde(rename = "enableKubevirtStaticIP", deserialize_with = "null_as_default")]
    enable_kubevirt_static_ip: bool,
    #[serde(deserialize_with = "null_as_default")]
    enable_validating_resources_deleted_webhook: bool,
    #[serde(deserialize_with = "null_as_default")]
    enable_spider_subnet: bool,
    #[serde(deserialize_with = "null_as_default")]
    enable_auto_pool_for_application: bool,
    #[serde(rename = "clusterSubnetAutoPoolDefaultRedundantIPNumber")]
    redundant_addresses: Option<u32>,
    /// As upstream's chart writes it, which its programs do not read.
    #[serde(rename = "clusterSubnetDefaultFlexibleIPNumber")]
    flexible_addresses: Option<u32>,
    #[serde(deserialize_with = "null_as_default")]
    pod_resource_inject: PodResourceInject,
}

/// What the file says of SpiderSubnets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubnetSettings {
    /// Whether pools belong to SpiderSubnets.
    pub enabled: bool,
    /// Whether applications get pools of their own, which are cut from SpiderSubnets.
    pub auto_pools: bool,
    /// How many addresses such a pool has beyond its application's pods, where the application does not say it.
    pub redundant_addresses: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct PodResourceInject {
    enabled: bool,
}

impl ConfigFile {
    /// The families of which pools are admitted: both unless the file says otherwise.
    pub(crate) fn families(&self) -> Families {
        Families { v4: self.enable_ipv4.unwrap_or(true), v6: self.enable_ipv6.unwrap_or(true) }
    }

    /// SpiderSubnets; applications' pools are made of them alone.
    pub(crate) fn subnets(&self) -> SubnetSettings {
        SubnetSettings {
            enabled: self.enable_spider_subnet,
            auto_pools: self.enable_spider_subnet && self.enable_auto_pool_for_application,
            redundant_addresses: self.redundant_addresses.or(self.flexible_addresses).unwrap_or_default(),
        }
    }

    /// Which workloads' pods leave their addresses to the next one.
    pub(crate) fn kept_workloads(&self) -> KeptWorkloads {
        KeptWorkloads {
            stateful_sets: self.enable_stateful_set,
            virtual_machines: self.enable_kubevirt_static_ip,
        }
    }

    /// Whether pods get the networks and resources that they ask for by an annotation.
    pub(crate) fn injects_resources(&self) -> bool {
        self.pod_resource_inject.enabled
    }

    /// Whether a pool with addresses in use may not be deleted.
    pub(crate) fn guards_deletion(&self) -> bool {
        self.enable_validating_resources_deleted_webhook
    }
}

impl Content for ConfigFile {
    /// Whatever the controller reads it serves.
    fn unsupported(&self) -> Option<Unsupported> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_agent_are_ignored() {
        let text = "enableIPv4: true\nenableSpiderSubnet: false\npodResourceInject:\n  enabled: false\n  namespacesExclude: [a]\n";
        for text in ["", text] {
            assert_eq!(ConfigFile::parse(text).unwrap().unsupported(), None);
        }
    }

    #[test]
    fn families_are_used_unless_the_file_says_otherwise() {
        let parse = |text| ConfigFile::parse(text).unwrap();
        assert_eq!(parse("").families(), Families { v4: true, v6: true });
        let file =
            parse("enableIPv4: false\nenableIPv6: null\nenableValidatingResourcesDeletedWebhook: true");
        assert_eq!(file.families(), Families { v4: false, v6: true });
        assert!(file.guards_deletion() && !parse("").guards_deletion());
        assert!(parse("podResourceInject: {enabled: true}").injects_resources());
        assert!(!parse("podResourceInject: {}").injects_resources() && !parse("").injects_resources());
        let kept = |stateful_sets, virtual_machines| KeptWorkloads { stateful_sets, virtual_machines };
        assert_eq!(parse("").kept_workloads(), kept(false, false));
        assert_eq!(parse("enableStatefulSet: true").kept_workloads(), kept(true, false));
        assert_eq!(parse("enableKubevirtStaticIP: true").kept_workloads(), kept(false, true));
    }

    #[test]
    fn the_redundant_addresses_have_two_keys_and_pools_of_applications_need_subnets() {
        let subnets = |text| ConfigFile::parse(text).unwrap().subnets();
        let settings = |enabled, auto_pools, redundant_addresses| SubnetSettings {
            enabled,
            auto_pools,
            redundant_addresses,
        };
        assert_eq!(subnets(""), SubnetSettings::default());
        assert_eq!(subnets("enableAutoPoolForApplication: true"), settings(false, false, 0));
        let both = "enableSpiderSubnet: true\nenableAutoPoolForApplication: true\n";
        let upstreams = format!("{both}clusterSubnetDefaultFlexibleIPNumber: 1\n");
        assert_eq!(subnets(&upstreams), settings(true, true, 1));
        let ours = format!("{upstreams}clusterSubnetAutoPoolDefaultRedundantIPNumber: 0\n");
        assert_eq!(subnets(&ours), settings(true, true, 0), "what the programs read decides");
        let error = ConfigFile::parse("clusterSubnetAutoPoolDefaultRedundantIPNumber: -1").unwrap_err();
        assert!(error.to_string().contains("clusterSubnetAutoPoolDefaultRedundantIPNumber"), "{error}");
    }
}
