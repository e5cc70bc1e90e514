//! What is fuzzed: one function of bytes for each kind of input that comes from outside. They panic where a rule does not hold.
//! `cargo xtask fuzz` runs them under libFuzzer, the tests of this crate on the corpora beside it.
#![forbid(unsafe_code)]

mod annotations;
mod bodies;
mod configurations;
mod ranges;
mod records;

use std::fmt;
use std::str::FromStr;

/// A kind of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A pool: `spec.subnet`, then a line for each range; those that begin with `!` are `spec.excludeIPs`.
    Ranges,
    /// Annotations of a pod: a line for each, key and value with `=` between them.
    Annotations,
    /// Configurations of the CNI plugins.
    Configurations,
    /// Bodies of requests to the agent.
    Bodies,
    /// What statuses of pools and subnets record.
    Records,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ranges, Self::Annotations, Self::Configurations, Self::Bodies, Self::Records];

    /// Its name, and that of the folder with its corpus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ranges => "ranges",
            Self::Annotations => "annotations",
            Self::Configurations => "configurations",
            Self::Bodies => "bodies",
            Self::Records => "records",
        }
    }

    /// Parses these bytes, and checks what must hold of the outcome.
    pub fn run(self, bytes: &[u8]) {
        match self {
            Self::Ranges => ranges::check(bytes),
            Self::Annotations => annotations::check(bytes),
            Self::Configurations => configurations::check(bytes),
            Self::Bodies => bodies::check(bytes),
            Self::Records => records::check(bytes),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|target| target.name() == text);
        found.ok_or_else(|| format!("there is no target {text:?}; targets: {:?}", Self::ALL.map(Self::name)))
    }
}
