//! Structured logs on standard error, one JSON object per line or plain text on a terminal.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// The levels that `SPIDERPOOL_LOG_LEVEL` knows. `fatal` and `panic` have no counterpart here: they show errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Everything, requests included.
    Debug,
    /// What an operator wants to see in normal running.
    Info,
    /// What needs a look.
    Warn,
    /// What failed.
    Error,
}

/// The text names no level.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("log level {0:?} is unknown: use debug, info, warn, error, fatal or panic")]
pub struct LevelError(String);

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        match text.trim() {
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" => Ok(Self::Warn),
            "error" | "fatal" | "panic" => Ok(Self::Error),
            other => Err(LevelError(other.to_owned())),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

/// Starts logging for the whole process. A second call does nothing.
///
/// `RUST_LOG` overrides `level`. Libraries are held to warnings: their debug output is a line per packet.
pub fn init(level: Level) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(format!("{level},hyper=warn,hyper_util=warn,kube=warn,rustls=warn,tower=warn"))
    });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let outcome = if std::io::stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).with_ansi(false).try_init()
    };
    if outcome.is_err() {
        tracing::debug!("logging was already started");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_what_the_chart_writes() {
        for (text, level) in
            [("debug", Level::Debug), (" info ", Level::Info), ("panic", Level::Error), ("warn", Level::Warn)]
        {
            assert_eq!(text.parse(), Ok(level));
        }
        assert!("INFO".parse::<Level>().is_err());
        assert!("".parse::<Level>().is_err());
    }
}
