//! The configuration file, `conf.yml` of the ConfigMap `spiderpool-conf`, as far as the controller reads it. Keys that
//! only the agent reads are not listed here.

use serde::Deserialize;
use spiderpool_core::Unsupported;
use spiderpool_core::admission::Families;
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
    pub(crate) enable_stateful_set: bool,
    #[serde(deserialize_with = "null_as_default")]
    enable_validating_resources_deleted_webhook: bool,
    #[serde(deserialize_with = "null_as_default")]
    enable_spider_subnet: bool,
    #[serde(deserialize_with = "null_as_default")]
    pod_resource_inject: PodResourceInject,
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
    fn unsupported(&self) -> Option<Unsupported> {
        let keys = [(self.enable_spider_subnet, Unsupported::SpiderSubnet)];
        keys.into_iter().find_map(|(is_set, feature)| is_set.then_some(feature))
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
        assert!(parse("enableStatefulSet: true").enable_stateful_set && !parse("").enable_stateful_set);
    }

    #[test]
    fn unsupported_features_are_refused_by_key() {
        let refused =
            ConfigFile::parse("enableSpiderSubnet: true").unwrap().unsupported().unwrap().to_string();
        assert!(refused.contains("enableSpiderSubnet"), "{refused}");
    }
}
