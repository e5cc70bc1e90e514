//! A place in the network: a network namespace together with the mount namespace that it is seen from.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process;

/// Where code and commands can be run: a machine or a pod on it.
#[derive(Debug, Clone)]
pub struct Place {
    /// What reports call it.
    pub name: String,
    mounts: PathBuf,
    network: PathBuf,
}

impl Place {
    /// The namespaces of a process.
    pub fn of_process(name: &str, id: u32) -> Self {
        let folder = PathBuf::from(format!("/proc/{id}/ns"));
        Self { name: name.to_owned(), mounts: folder.join("mnt"), network: folder.join("net") }
    }

    /// A network namespace bound to `path` in this place's mount namespace.
    #[must_use]
    pub fn with_network(&self, name: &str, path: &Path) -> Self {
        Self { name: name.to_owned(), mounts: self.mounts.clone(), network: path.to_owned() }
    }

    /// Moves the calling thread here, for the rest of its life.
    ///
    /// The network namespace is opened after the mount namespace was entered, because its path is valid there.
    pub fn enter(&self) -> Result<()> {
        let open =
            |path: &Path| File::open(path).with_context(|| format!("{}: {}", self.name, path.display()));
        // A thread that shares its root and working directory with others may not change its mount namespace.
        unshare(CloneFlags::CLONE_FS)?;
        setns(open(&self.mounts)?, CloneFlags::CLONE_NEWNS)
            .with_context(|| format!("{}: mounts", self.name))?;
        setns(open(&self.network)?, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("{}: network", self.name))?;
        Ok(())
    }

    /// Runs `work` here, on a thread of its own, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let here = || self.enter().and_then(|()| work());
        thread::scope(|scope| scope.spawn(here).join())
            .map_err(|_| anyhow!("a thread in {} panicked", self.name))?
    }

    /// Starts a thread here.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let here = self.clone();
        thread::spawn(move || here.enter().and_then(|()| work()))
    }

    /// Runs a command here to its end; its output.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.run(|| process::run(program, arguments)).with_context(|| self.name.clone())
    }

    /// Runs the lines of `script` as arguments of ip(8), in one process.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.run(|| process::output_with_input(Command::new("ip").args(["-batch", "-"]), script))
            .with_context(|| format!("{}: ip -batch:\n{script}", self.name))?;
        Ok(())
    }

    /// Loads nftables rules.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.run(|| process::output_with_input(Command::new("nft").args(["-f", "-"]), rules))
            .with_context(|| format!("{}: {rules}", self.name))?;
        Ok(())
    }

    /// Sets sysctls below `/proc/sys/net`, given as `path=value`.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        self.run(|| {
            for setting in settings {
                let (path, value) = setting.split_once('=').with_context(|| (*setting).to_owned())?;
                std::fs::write(Path::new("/proc/sys/net").join(path), value)
                    .with_context(|| format!("{}: sysctl {setting}", self.name))?;
            }
            Ok(())
        })
    }

    /// A command line that opens a shell here.
    pub fn shell(&self) -> String {
        // A pod's path exists in its node's mount namespace only, hence the second nsenter.
        let enter = format!("nsenter --mount={}", self.mounts.display());
        let nested = if self.network.starts_with("/proc") { "" } else { " nsenter" };
        format!("{enter}{nested} --net={}", self.network.display())
    }

    /// A command to be run here by [`crate::process::Process`], whose threads cannot enter.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount={}", self.mounts.display()))
            .arg(format!("--net={}", self.network.display()))
            .arg("--")
            .arg(program);
        command
    }
}
