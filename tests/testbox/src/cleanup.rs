//! Ends a cluster and removes what is left of it. Asks nobody who started what: the cgroups know.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup;

const LIMIT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(10);

/// Kills what runs in `group` and removes its cgroup directories.
pub fn end(group: &Path) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        // Processes of a machine die with its process 1; the others are asked as well, which does no harm.
        let left = cgroup::processes(group)?;
        for process in &left {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(*process), Signal::SIGKILL);
        }
        if left.is_empty() && cgroup::remove(group)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("cgroup {}: processes {left:?} did not end within {LIMIT:?}", group.display());
        }
        thread::sleep(STEP);
    }
}

/// Ends the cluster in `group` and removes its folder.
pub fn remove(group: &Path, folder: &Path) -> Result<()> {
    end(group)?;
    let deadline = Instant::now() + LIMIT;
    // The kernel lets go of the mounts of dead processes a moment later.
    while folder.exists() {
        match fs::remove_dir_all(folder) {
            Ok(()) => break,
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            Err(_) => thread::sleep(STEP),
        }
    }
    Ok(())
}

/// `testbox janitor GROUP FOLDER LOGS`: waits for the end of standard input, which comes also when the writer is
/// killed, keeps the logs and removes the cluster.
pub fn janitor(group: &Path, folder: &Path, logs: &Path) -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new()).context("standard input")?;
    end(group)?;
    if let Err(error) = keep_logs(folder, logs) {
        eprintln!("logs of {}: {error:#}", folder.display());
    }
    remove(group, folder)
}

fn keep_logs(folder: &Path, logs: &Path) -> Result<()> {
    if logs.exists() {
        fs::remove_dir_all(logs)?;
    }
    for machine in fs::read_dir(folder)?.flatten() {
        let target = logs.join(machine.file_name());
        for file in fs::read_dir(machine.path()).into_iter().flatten().flatten() {
            if file.path().extension().is_some_and(|extension| extension == "log") {
                fs::create_dir_all(&target)?;
                fs::copy(file.path(), target.join(file.file_name()))?;
            }
        }
    }
    Ok(())
}
