//! The configuration file, `conf.yml` of the ConfigMap `spiderpool-conf`. Agent and controller share it, and each
//! decodes the keys that it reads; a missing key has the type's zero value, not the chart's default.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use spiderpool_core::Unsupported;
use thiserror::Error;

/// What a daemon reads of the file.
pub trait Content: Default + DeserializeOwned {
    /// The first feature that a key asks for and that is not there yet.
    fn unsupported(&self) -> Option<Unsupported>;

    /// Reads and checks the file.
    fn load(path: &Path) -> Result<Self, ConfigFileError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigFileError::Read { path: path.to_owned(), source })?;
        let content =
            Self::parse(&text).map_err(|source| ConfigFileError::Parse { path: path.to_owned(), source })?;
        match content.unsupported() {
            None => Ok(content),
            Some(source) => Err(ConfigFileError::Unsupported { path: path.to_owned(), source }),
        }
    }

    /// What a file with this text says; an empty one leaves everything at its zero value.
    fn parse(text: &str) -> Result<Self, serde_norway::Error> {
        Ok(serde_norway::from_str::<Option<Self>>(text)?.unwrap_or_default())
    }
}

/// Why a daemon cannot run with this file.
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
    /// A key asks for a feature that is not there yet.
    #[error("configuration file {path}: {source}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature.
        source: Unsupported,
    },
}

/// For a key that may stand there without a value.
pub fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct File {
        #[serde(deserialize_with = "null_as_default")]
        wanted: String,
        #[serde(deserialize_with = "null_as_default")]
        asks: bool,
    }

    impl Content for File {
        fn unsupported(&self) -> Option<Unsupported> {
            self.asks.then_some(Unsupported::IaasNetworkProvider)
        }
    }

    #[test]
    fn missing_and_empty_keys_are_zero_and_those_of_others_ignored() {
        for text in ["", "wanted:\nasks:\n", "another: 1\n"] {
            assert_eq!(File::parse(text).unwrap(), File::default(), "{text}");
        }
    }

    #[test]
    fn every_failure_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("conf.yml");
        for (text, part) in [
            (None, "cannot be read"),
            (Some("wanted: [1]"), "wanted"),
            (Some("asks: true"), "iaasNetworkProvider.serverUrl is not supported yet: leave it empty"),
        ] {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let error = File::load(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("conf.yml"), "{error}");
        }
    }
}
