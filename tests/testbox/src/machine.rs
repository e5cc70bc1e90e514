//! A machine: a process tree in namespaces and cgroups of its own, under a process 1 that outlives who started it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};

use crate::cgroup;

/// What a machine is made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Its host name.
    pub name: String,
    /// Its cgroup directory in every hierarchy: the cluster's, then its own.
    pub group: PathBuf,
    /// Its disk and its logs.
    pub folder: PathBuf,
    /// Folders that it sees at the same path.
    pub shared: Vec<PathBuf>,
    /// Folders on its disk that must not lie on an overlay, such as /var/lib/containerd.
    pub volumes: Vec<PathBuf>,
    /// What /etc/hosts says beside localhost.
    pub hosts: String,
}

impl Spec {
    /// Reads the specification from a machine's folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = file(folder);
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Writes it there.
    pub fn write(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        Ok(fs::write(file(&self.folder), serde_json::to_vec_pretty(self)?)?)
    }

    /// The log of process 1.
    pub fn log(&self) -> PathBuf {
        self.folder.join("init.log")
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("machine.json")
}

/// The processes of machines keep these namespaces to themselves.
fn namespaces() -> CloneFlags {
    CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP
}

/// `testbox start FOLDER`: starts process 1 and prints its id. This process is not for anything else afterwards.
pub fn start(folder: &Path) -> Result<()> {
    let spec = Spec::read(folder)?;
    cgroup::create(&spec.group)?;
    cgroup::join(&spec.group)?;
    setsid().context("setsid")?;
    let log = File::options().create(true).append(true).open(spec.log())?;
    unshare(namespaces()).context("unshare")?;
    let init = Command::new("/proc/self/exe")
        .arg("init")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start process 1")?;
    println!("{}", init.id());
    Ok(())
}
