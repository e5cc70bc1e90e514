//! Why a plugin failed, as one word and as one number.

use std::fmt;

/// Each has a CNI error code: 1 to 99 as the specification has them, 100 and above are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "PluginError says of each what it is")]
pub enum Reason {
    Version,
    Environment,
    Netns,
    Stdin,
    Decode,
    Config,
    /// The same request may succeed later.
    AgentUnavailable,
    /// The answer to STATUS.
    NotAvailable,
    Allocation,
    CoordinatorConfig,
    Register,
    Unsupported,
    Plan,
    Kernel,
    Programs,
    Check,
    Gc,
    Detection,
    Panic,
}

impl Reason {
    /// The CNI error code and the word of logs.
    const fn row(self) -> (u32, &'static str) {
        match self {
            Self::Version => (1, "version"),
            Self::Environment => (4, "environment"),
            Self::Netns => (4, "netns"),
            Self::Stdin => (5, "stdin"),
            Self::Decode => (6, "decode"),
            Self::Config => (7, "config"),
            Self::AgentUnavailable => (11, "agent_unavailable"),
            Self::NotAvailable => (50, "not_available"),
            Self::Allocation => (100, "allocation"),
            Self::CoordinatorConfig => (101, "coordinator_config"),
            Self::Register => (101, "register"),
            Self::Unsupported => (102, "unsupported"),
            Self::Plan => (103, "plan"),
            Self::Kernel => (104, "kernel"),
            Self::Programs => (105, "programs"),
            Self::Check => (106, "check"),
            Self::Gc => (107, "gc"),
            Self::Detection => (108, "detection"),
            Self::Panic => (199, "panic"),
        }
    }

    /// The CNI error code.
    pub const fn code(self) -> u32 {
        self.row().0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}
