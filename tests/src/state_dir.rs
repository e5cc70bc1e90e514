//! A folder for the state of what a test run starts, removed when this process ends, however it ends.
//!
//! A small shell (the janitor) waits for the end of its standard input, which is a pipe from this process: the kernel
//! closes it also after `kill -9`. It then keeps the logs in `target/test-logs/<program>` and removes the folder.

use std::env;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::tools;

/// `$1` is the folder, `$2` where its logs go. Processes that write into the folder are being killed meanwhile, hence the attempts.
const JANITOR: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
rm -rf "$2"; mkdir -p "$2"
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    cp -r "$1"/logs/* "$2"/ 2>/dev/null
    rm -rf "$1" 2>/dev/null && break
    sleep 0.1
done
"#;

/// The folder; removed on drop, or by the janitor when this process ends without drop.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    janitor: Child,
}

impl StateDir {
    /// Makes the folder, readable by root alone, with a subfolder `logs`.
    pub fn create() -> Result<Self> {
        let path = tempfile::Builder::new().prefix("spiderpool-").tempdir().context("state folder")?.keep();
        fs::create_dir(path.join("logs"))?;
        let program = env::current_exe()?;
        let name =
            program.file_name().map_or_else(|| "unknown".into(), |name| name.to_string_lossy().into_owned());
        // Cargo appends a hash to test binaries; the kept logs have the plain name.
        let name = name.rsplit_once('-').map_or(name.as_str(), |(plain, _)| plain);
        let janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .args([path.as_path(), tools::kept_logs().join(name).as_path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the janitor of the state folder")?;
        Ok(Self { path, janitor })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log file of a process.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(format!("{name}.log"))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        if let Err(error) = self.janitor.wait() {
            eprintln!("state folder {}: {error}", self.path.display());
        }
    }
}
