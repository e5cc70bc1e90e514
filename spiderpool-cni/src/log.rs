//! The log file: one JSON object per line, appended by many processes at once.
//!
//! A file that has grown too large is renamed, with the time in its name, by the first process that opens it
//! then. Plugins of one node write to the same file; each line is one `write`, which `O_APPEND` keeps whole.

mod file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use file::Limits;

/// Where and how much to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// debug, info, warn, error, fatal, panic in any case.
    pub level: String,
    /// The file, below /var/log.
    pub path: PathBuf,
    /// Size in MiB at which the file is renamed; 0 and negative mean 100.
    pub max_size: i64,
    /// Days after which renamed files are deleted; 0 keeps them, negative means 30.
    pub max_age: i64,
    /// How many renamed files are kept; 0 keeps all, negative means 10.
    pub max_count: i64,
}

/// Whoever may write a NetworkAttachmentDefinition chooses the file, which a process of root's opens.
const ROOT: &str = "/var/log";
const DEFAULT_MAX_SIZE: u64 = 100;
const DEFAULT_MAX_AGE: u64 = 30;
const DEFAULT_MAX_COUNT: usize = 10;
const MEBIBYTE: u64 = 1 << 20;
const SECONDS_OF_A_DAY: u64 = 24 * 60 * 60;

impl LogOptions {
    /// Everything, to /var/log/spidernet/`plugin`.log.
    pub fn new(plugin: &str) -> Self {
        Self {
            level: "debug".to_owned(),
            path: Path::new(ROOT).join("spidernet").join(plugin).with_extension("log"),
            max_size: 0,
            max_age: 0,
            max_count: 0,
        }
    }

    /// The level as a filter; `None` if it is unknown.
    pub fn filter(&self) -> Option<LevelFilter> {
        Some(match self.level.to_ascii_lowercase().as_str() {
            "debug" | "" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warn" => LevelFilter::WARN,
            "error" | "fatal" | "panic" => LevelFilter::ERROR,
            _ => return None,
        })
    }

    fn limits(&self) -> Limits {
        let size = u64::try_from(self.max_size).ok().filter(|size| *size > 0).unwrap_or(DEFAULT_MAX_SIZE);
        let days = u64::try_from(self.max_age).unwrap_or(DEFAULT_MAX_AGE);
        let age = Duration::from_secs(days.saturating_mul(SECONDS_OF_A_DAY));
        Limits {
            size: size.saturating_mul(MEBIBYTE),
            age: Some(age).filter(|age| !age.is_zero()),
            count: usize::try_from(self.max_count).unwrap_or(DEFAULT_MAX_COUNT),
        }
    }

    fn open(&self) -> io::Result<std::fs::File> {
        let below = self.path.strip_prefix(ROOT).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("log files must be below {ROOT}"))
        })?;
        file::open(Path::new(ROOT), below, &self.limits())
    }
}

/// Sends the process's events to the file. A request never fails for its log: without the file it goes to
/// standard error, which runtimes keep.
pub fn start(options: &LogOptions) {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_max_level(options.filter().unwrap_or(LevelFilter::DEBUG));
    let started = match options.open() {
        Ok(file) => tracing::subscriber::set_global_default(subscriber.with_writer(Arc::new(file)).finish()),
        Err(error) => {
            let started =
                tracing::subscriber::set_global_default(subscriber.with_writer(io::stderr).finish());
            tracing::warn!(path = %options.path.display(), %error, "log file cannot be opened");
            started
        }
    };
    // A second call in one process, as tests make it, keeps the first.
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_in_any_case() {
        let level = |text: &str| LogOptions { level: text.to_owned(), ..LogOptions::new("x") }.filter();
        assert_eq!(level("INFO"), Some(LevelFilter::INFO));
        assert_eq!(level("Panic"), Some(LevelFilter::ERROR));
        assert_eq!(level(""), Some(LevelFilter::DEBUG), "upstream refuses logOptions without logLevel");
        assert_eq!(level("loud"), None);
    }

    #[test]
    fn negative_limits_mean_upstreams_defaults() {
        let limits = |max_size, max_age, max_count| {
            LogOptions { max_size, max_age, max_count, ..LogOptions::new("x") }.limits()
        };
        let days = |days| Some(Duration::from_hours(24) * days);
        assert_eq!(limits(-1, -1, i64::MIN), Limits { size: 100 << 20, age: days(30), count: 10 });
        assert_eq!(limits(0, 0, 0), Limits { size: 100 << 20, age: None, count: 0 });
        assert_eq!(limits(1, 2, 3), Limits { size: 1 << 20, age: days(2), count: 3 });
        assert_eq!(limits(i64::MAX, i64::MAX, 1).size, u64::MAX);
    }

    #[test]
    fn a_log_path_outside_of_var_log_is_refused() {
        for path in ["/tmp/x.log", "x.log", "", "/var/log", "/var/logs/x.log", "/var/log/../x.log"] {
            let options = LogOptions { path: path.into(), ..LogOptions::new("x") };
            assert!(options.open().is_err(), "{path}");
        }
    }
}
