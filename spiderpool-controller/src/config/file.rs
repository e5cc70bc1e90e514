//! The configuration file, `conf.yml` of the ConfigMap `spiderpool-conf`, as far as the controller reads it. Keys that
//! only the agent reads are not listed here.

use serde::Deserialize;
use spiderpool_core::Unsupported;
use spiderpool_runtime::config_file::{Content, null_as_default};

/// What the controller reads of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
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

impl Content for ConfigFile {
    fn unsupported(&self) -> Option<Unsupported> {
        let keys = [
            (self.enable_spider_subnet, Unsupported::SpiderSubnet),
            (self.pod_resource_inject.enabled, Unsupported::PodResourceInject),
        ];
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
    fn unsupported_features_are_refused_by_key() {
        for (text, key) in [
            ("enableSpiderSubnet: true", "enableSpiderSubnet"),
            ("podResourceInject: {enabled: true}", "podResourceInject.enabled"),
        ] {
            let refused = ConfigFile::parse(text).unwrap().unsupported().unwrap().to_string();
            assert!(refused.contains(key), "{refused}");
        }
    }
}
