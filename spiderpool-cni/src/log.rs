//! The log file: one JSON object per line, appended by many processes at once.
//!
//! A file that has grown too large is renamed, with the time in its name, by the first process that opens it
//! then. Plugins of one node write to the same file; each line is one `write`, which `O_APPEND` keeps whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use tracing::level_filters::LevelFilter;

/// Where and how much to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// debug, info, warn, error, fatal, panic in any case.
    pub level: String,
    /// The file.
    pub path: PathBuf,
    /// Size in MiB at which the file is renamed; 0 means 100.
    pub max_size: u64,
    /// Days after which renamed files are deleted; 0 keeps them.
    pub max_age: u64,
    /// How many renamed files are kept; 0 keeps all.
    pub max_count: usize,
}

const DEFAULT_MAX_SIZE: u64 = 100;
const MEBIBYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_hours(24);

impl LogOptions {
    /// Everything, to /var/log/spidernet/`plugin`.log.
    pub fn new(plugin: &str) -> Self {
        Self {
            level: "debug".to_owned(),
            path: Path::new("/var/log/spidernet").join(plugin).with_extension("log"),
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
}

/// Sends the process's events to the file. A request never fails for its log: without the file it goes to
/// standard error, which runtimes keep.
pub fn start(options: &LogOptions) {
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_max_level(options.filter().unwrap_or(LevelFilter::DEBUG));
    let started = match open(options) {
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

fn open(options: &LogOptions) -> io::Result<File> {
    let limit = if options.max_size == 0 { DEFAULT_MAX_SIZE } else { options.max_size };
    let mut file = append(&options.path)?;
    if file.metadata()?.len() >= limit.saturating_mul(MEBIBYTE) {
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusive) {
            // Another process may have renamed it while this one waited.
            let is_current =
                fs::metadata(&options.path).is_ok_and(|m| lock.metadata().is_ok_and(|l| l.ino() == m.ino()));
            if is_current {
                fs::rename(&options.path, renamed(&options.path))?;
                prune(options)?;
            }
        }
        file = append(&options.path)?;
    }
    Ok(file)
}

fn append(path: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    open.create(true).append(true);
    match open.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            open.open(path)
        }
        result => result,
    }
}

/// `NAME-SECONDS.EXT`
fn renamed(path: &Path) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}-{seconds}.{extension}"))
}

fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    (text(path.file_stem()), text(path.extension()))
}

fn prune(options: &LogOptions) -> io::Result<()> {
    let (stem, extension) = parts(&options.path);
    let (prefix, suffix) = (format!("{stem}-"), format!(".{extension}"));
    let folder = options.path.parent().unwrap_or(Path::new("."));
    let mut old: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let middle = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&suffix));
            middle.is_some_and(|m| !m.is_empty() && m.bytes().all(|b| b.is_ascii_digit()))
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    old.sort();
    let surplus = if options.max_count == 0 { 0 } else { old.len().saturating_sub(options.max_count) };
    let oldest = u32::try_from(options.max_age)
        .ok()
        .filter(|d| *d > 0)
        .and_then(|d| SystemTime::now().checked_sub(DAY * d));
    for (position, (modified, path)) in old.iter().enumerate() {
        if position < surplus || oldest.is_some_and(|oldest| *modified < oldest) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_large_file_is_renamed_and_old_ones_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("spiderpool.log");
        let options =
            LogOptions { path: path.clone(), max_size: 1, max_count: 2, ..LogOptions::new("spiderpool") };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.with_file_name("spiderpool-notes.log"), "not ours to delete").unwrap();
        for round in 0..5u8 {
            let mut file = open(&options).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 0, "round {round} begins a new file");
            file.write_all(&vec![b'x'; MEBIBYTE as usize]).unwrap();
            // Renamed files differ in their time.
            let old = renamed(&path);
            while renamed(&path) == old {}
        }
        let mut names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), 4, "the file, two old ones, one of somebody else: {names:?}");
    }

    #[test]
    fn a_small_file_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coordinator.log");
        let options = LogOptions { path: path.clone(), ..LogOptions::new("coordinator") };
        open(&options).unwrap().write_all(b"one\n").unwrap();
        open(&options).unwrap().write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn levels_in_any_case() {
        let level = |text: &str| LogOptions { level: text.to_owned(), ..LogOptions::new("x") }.filter();
        assert_eq!(level("INFO"), Some(LevelFilter::INFO));
        assert_eq!(level("Panic"), Some(LevelFilter::ERROR));
        assert_eq!(level(""), Some(LevelFilter::DEBUG), "upstream refuses logOptions without logLevel");
        assert_eq!(level("loud"), None);
    }
}
