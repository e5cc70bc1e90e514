//! The configuration file, `conf.yml` of the ConfigMap `spiderpool-conf`, as far as the controller reads it. Keys that
//! only the agent reads are not listed here.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use thiserror::Error;

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

/// Why the controller cannot run with this file.
#[derive(Debug, Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("configuration file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("configuration file {path} is invalid: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_norway::Error,
    },
    /// It asks for what is not built.
    #[error("configuration file {path}: {key} is not supported yet: set it to false")]
    NotSupported {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
}

impl ConfigFile {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigFileError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigFileError::Read { path: path.to_owned(), source })?;
        let file: Option<Self> = serde_norway::from_str(&text)
            .map_err(|source| ConfigFileError::Parse { path: path.to_owned(), source })?;
        let file = file.unwrap_or_default();
        match file.not_supported() {
            None => Ok(file),
            Some(key) => Err(ConfigFileError::NotSupported { path: path.to_owned(), key }),
        }
    }

    fn not_supported(&self) -> Option<&'static str> {
        let keys = [
            ("enableSpiderSubnet", self.enable_spider_subnet),
            ("podResourceInject.enabled", self.pod_resource_inject.enabled),
        ];
        keys.into_iter().find_map(|(key, wanted)| wanted.then_some(key))
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<ConfigFile, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conf.yml");
        fs::write(&path, text).unwrap();
        ConfigFile::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn other_keys_are_the_agents() {
        assert!(load("").is_ok());
        let text = "enableIPv4: true\nenableSpiderSubnet: false\npodResourceInject:\n  enabled: false\n  namespacesExclude: [a]\n";
        assert_eq!(load(text), Ok(ConfigFile::default()));
    }

    #[test]
    fn what_is_not_built_is_refused_by_key() {
        for (text, key) in [
            ("enableSpiderSubnet: true", "enableSpiderSubnet"),
            ("podResourceInject: {enabled: true}", "podResourceInject.enabled"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(key) && error.contains("not supported yet"), "{error}");
        }
        assert!(ConfigFile::load(Path::new("/none")).unwrap_err().to_string().contains("/none"));
    }
}
