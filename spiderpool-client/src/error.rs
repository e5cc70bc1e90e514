//! Why a request to the agent failed.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// The agent did not do what it was asked to do.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No process listens on the socket.
    #[error("{}: {source}; check that spiderpool-agent runs on this node", socket.display())]
    Unreachable {
        /// The agent's socket.
        socket: PathBuf,
        /// Why connecting failed.
        source: io::Error,
    },
    /// The time limit passed, or the connection broke.
    #[error("{method} {path}: {source}")]
    Io {
        /// HTTP method.
        method: &'static str,
        /// HTTP path.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The agent refused.
    #[error("{text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The agent's error text.
        text: String,
    },
    /// The answer is not HTTP, or not the JSON that the operation returns.
    #[error("{method} {path}: the answer is not understood: {cause}")]
    Answer {
        /// HTTP method.
        method: &'static str,
        /// HTTP path.
        path: &'static str,
        /// What is wrong.
        cause: String,
    },
}

impl ClientError {
    /// A short constant for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "agent_unreachable",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::TimedOut => "agent_timeout",
            Self::Io { .. } => "agent_connection",
            Self::Refused { .. } => "agent_refused",
            Self::Answer { .. } => "agent_answer",
        }
    }

    /// Whether no agent runs on the node.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Io { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 502..=504),
            Self::Answer { .. } => false,
        }
    }
}
