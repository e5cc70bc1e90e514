//! What the configurations of `coordinator` and `ifacer` have in common.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use spiderpool_api::agent::null_as_default;

use crate::error::{ConfigError, PluginError};
use crate::log::LogOptions;

/// What every plugin has, and where to log.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Base {
    /// The network's name.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Of the plugins before.
    pub prev_result: Value,
    /// Where to log.
    #[serde(deserialize_with = "null_as_default")]
    pub log_options: LogConf,
    /// The agent's socket; our addition.
    pub ipam_unix_socket_path: Option<PathBuf>,
}

/// `logOptions` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LogConf {
    #[serde(rename = "logLevel", deserialize_with = "null_as_default")]
    level: String,
    #[serde(rename = "logFile")]
    file: Option<PathBuf>,
    #[serde(rename = "logMaxSize", deserialize_with = "null_as_default")]
    max_size: i64,
    #[serde(rename = "logMaxAge", deserialize_with = "null_as_default")]
    max_age: i64,
    #[serde(rename = "logMaxCount", deserialize_with = "null_as_default")]
    max_count: i64,
}

impl Base {
    /// Parses it; a network has a name.
    pub(crate) fn parse(value: &Value) -> Result<Self, PluginError> {
        let base = Self::deserialize(value).map_err(PluginError::Decode)?;
        if base.name.is_empty() { Err(ConfigError::NoName.into()) } else { Ok(base) }
    }

    /// Where the plugin logs.
    pub(crate) fn log_options(&self, plugin: &str) -> LogOptions {
        let conf = &self.log_options;
        let default = LogOptions::new(plugin);
        LogOptions {
            level: if conf.level.is_empty() { default.level } else { conf.level.clone() },
            path: conf.file.clone().unwrap_or(default.path),
            max_size: conf.max_size,
            max_age: conf.max_age,
            max_count: conf.max_count,
        }
    }
}
