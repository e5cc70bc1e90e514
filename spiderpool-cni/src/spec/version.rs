//! Versions of the specification.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};
use thiserror::Error;

/// A version that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Version {
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK
    V0_4_0,
    /// 1.0.0: addresses without `version`
    V1_0_0,
    /// 1.1.0: STATUS and GC
    #[default]
    V1_1_0,
}

/// Not a version that we speak.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unsupported specified CNI version {0:?}: use one of 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0")]
pub struct VersionError(pub String);

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// As written in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Before 1.0.0 an address says its IP version.
    pub fn has_ip_version(self) -> bool {
        self < Self::V1_0_0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        Self::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| VersionError(text.to_owned()))
    }
}

/// The answer to VERSION.
pub fn versions_json(requested: &str) -> Value {
    let requested = if requested.is_empty() { Version::default().as_str() } else { requested };
    json!({ "cniVersion": requested, "supportedVersions": Version::ALL.map(Version::as_str) })
}
