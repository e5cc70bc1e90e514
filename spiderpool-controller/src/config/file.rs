//! The configuration file, `conf.yml` of the ConfigMap `spiderpool-conf`, as far as the controller reads it. Keys that
//! only the agent reads are not listed here.

use serde::Deserialize;
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
    fn not_supported(&self) -> Option<(&'static str, &'static str)> {
        let keys = [
            ("enableSpiderSubnet", self.enable_spider_subnet),
            ("podResourceInject.enabled", self.pod_resource_inject.enabled),
        ];
        keys.into_iter().find_map(|(key, wanted)| wanted.then_some((key, "set it to false")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_keys_are_the_agents() {
        let text = "enableIPv4: true\nenableSpiderSubnet: false\npodResourceInject:\n  enabled: false\n  namespacesExclude: [a]\n";
        for text in ["", text] {
            assert_eq!(ConfigFile::parse(text).unwrap().not_supported(), None);
        }
    }

    #[test]
    fn what_is_not_built_is_refused_by_key() {
        for (text, key) in [
            ("enableSpiderSubnet: true", "enableSpiderSubnet"),
            ("podResourceInject: {enabled: true}", "podResourceInject.enabled"),
        ] {
            let refused = ConfigFile::parse(text).unwrap().not_supported();
            assert_eq!(refused.map(|(key, _)| key), Some(key));
        }
    }
}
