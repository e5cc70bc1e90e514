//! Settings that are one of a few words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SettingsError;

/// What steers the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dataplane {
    /// tc programs on the pod's NICs.
    #[default]
    Ebpf,
    /// ip rules, tables and connection marks.
    Policy,
}

impl Dataplane {
    /// What may be written.
    pub const SPELLINGS: [&str; 2] = ["ebpf", "policy"];
}

impl fmt::Display for Dataplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebpf => "ebpf",
            Self::Policy => "policy",
        })
    }
}

impl FromStr for Dataplane {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        match text {
            "ebpf" => Ok(Self::Ebpf),
            "policy" => Ok(Self::Policy),
            _ => Err(SettingsError::Dataplane(text.to_owned())),
        }
    }
}

/// Whether plain routes are kept in the pod's main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteHints {
    /// Where the default route is on an underlay NIC, or an underlay subnet covers a cluster destination.
    #[default]
    Auto,
    /// Never: the programs translate instead.
    Never,
}

impl RouteHints {
    /// What may be written.
    pub const SPELLINGS: [&str; 2] = ["auto", "never"];
}

impl fmt::Display for RouteHints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Never => "never",
        })
    }
}

impl FromStr for RouteHints {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        match text {
            "auto" => Ok(Self::Auto),
            "never" => Ok(Self::Never),
            _ => Err(SettingsError::RouteHints(text.to_owned())),
        }
    }
}

/// Who may open flows to a pod by its node link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeLinkCallers {
    /// Whoever reaches the node: its own processes, NodePorts, and other pods of the node.
    #[default]
    All,
    /// Not the pods of the node: the pod's underlay addresses are behind no ingress policy of the default network.
    Node,
}

impl NodeLinkCallers {
    /// What may be written.
    pub const SPELLINGS: [&str; 2] = ["all", "node"];
}

impl fmt::Display for NodeLinkCallers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Node => "node",
        })
    }
}

impl FromStr for NodeLinkCallers {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        match text {
            "all" => Ok(Self::All),
            "node" => Ok(Self::Node),
            _ => Err(SettingsError::NodeLink(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Mode;

    #[track_caller]
    fn check<T: FromStr<Err = SettingsError> + ToString>(spellings: &[&str], other: &[&str]) {
        for text in spellings {
            let parsed = text.parse::<T>().unwrap().to_string();
            assert!(parsed == *text || other.contains(text), "{text} is {parsed}");
        }
        assert!("".parse::<T>().is_err() && "Auto".parse::<T>().is_err());
    }

    #[test]
    fn every_spelling_is_parsed_and_printed_alike() {
        check::<Mode>(&Mode::SPELLINGS, &["disable"]);
        check::<Dataplane>(&Dataplane::SPELLINGS, &[]);
        check::<RouteHints>(&RouteHints::SPELLINGS, &[]);
        check::<NodeLinkCallers>(&NodeLinkCallers::SPELLINGS, &[]);
    }
}
