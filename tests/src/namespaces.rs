//! A place in the network: a network namespace together with the mount namespace that it is seen from, and for machines
//! of a cluster their other namespaces.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use spiderpool_testbox::sysctl;

use crate::process;

/// Where code and commands can be run: a machine or a pod on it.
#[derive(Debug, Clone)]
pub struct Namespaces {
    /// What reports call it.
    pub name: String,
    mounts: Option<PathBuf>,
    network: PathBuf,
    /// Whether the path of the network is one in the mount namespace.
    is_inside: bool,
    /// Host name, IPC and cgroups.
    others: Vec<(PathBuf, CloneFlags)>,
    /// For commands only: threads cannot change theirs.
    processes: Option<PathBuf>,
}

impl Namespaces {
    /// The namespaces of a process.
    pub fn of_process(name: &str, id: u32) -> Self {
        let folder = PathBuf::from(format!("/proc/{id}/ns"));
        let mounts = Some(folder.join("mnt"));
        Self {
            name: name.to_owned(),
            mounts,
            network: folder.join("net"),
            is_inside: false,
            others: Vec::new(),
            processes: None,
        }
    }

    /// All namespaces of a process; commands see its processes only.
    pub fn of_machine(name: &str, id: u32) -> Self {
        let folder = PathBuf::from(format!("/proc/{id}/ns"));
        let others = [
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ];
        let others = others.map(|(file, flag)| (folder.join(file), flag)).to_vec();
        Self { others, processes: Some(folder.join("pid")), ..Self::of_process(name, id) }
    }

    /// The network of a process, with the files of this one.
    pub fn network_of(name: &str, id: u32) -> Self {
        Self { mounts: None, ..Self::of_process(name, id) }
    }

    /// A network namespace bound to `path` in this place's mount namespace.
    #[must_use]
    pub fn with_network(&self, name: &str, path: &Path) -> Self {
        Self { name: name.to_owned(), network: path.to_owned(), is_inside: true, ..self.clone() }
    }

    /// Moves the calling thread here, for the rest of its life.
    pub fn enter(&self) -> Result<()> {
        // A thread that shares its root and working directory with others may not change its mount namespace.
        unshare(CloneFlags::CLONE_FS)?;
        for (path, kind) in &self.others {
            self.set(&self.open(path)?, *kind)?;
        }
        let outside = if self.is_inside { None } else { Some(self.open(&self.network)?) };
        if let Some(mounts) = &self.mounts {
            self.set(&self.open(mounts)?, CloneFlags::CLONE_NEWNS)?;
        }
        let network = outside.map_or_else(|| self.open(&self.network), Ok)?;
        self.set(&network, CloneFlags::CLONE_NEWNET)
    }

    fn open(&self, path: &Path) -> Result<File> {
        File::open(path).with_context(|| format!("{}: {}", self.name, path.display()))
    }

    fn set(&self, file: &File, kind: CloneFlags) -> Result<()> {
        setns(file, kind).with_context(|| format!("{}: {kind:?}", self.name))
    }

    /// As [`Self::run`], for work that starts commands and no threads.
    fn run_commands<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let here = || {
            if let Some(processes) = &self.processes {
                self.set(&self.open(processes)?, CloneFlags::CLONE_NEWPID)?;
            }
            self.enter().and_then(|()| work())
        };
        run_on_thread(&self.name, here)
    }

    /// Runs `work` here, on a thread of its own, and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        run_on_thread(&self.name, || self.enter().and_then(|()| work()))
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
        self.run_commands(|| process::run(program, arguments)).with_context(|| self.name.clone())
    }

    /// Runs a command here to its end, with `input` on standard input; its output.
    pub fn output_with_input(&self, command: &Command, input: &str) -> Result<String> {
        self.run_commands(|| process::output_with_input(command, input)).with_context(|| self.name.clone())
    }

    /// Runs the lines of `script` as arguments of ip(8), in one process.
    pub fn ip(&self, script: &str) -> Result<()> {
        self.run_commands(|| process::output_with_input(Command::new("ip").args(["-batch", "-"]), script))
            .with_context(|| format!("{}: ip -batch:\n{script}", self.name))?;
        Ok(())
    }

    /// The MAC of one of the network namespace's devices.
    pub fn mac_of(&self, device: &str) -> Result<String> {
        let link = self.output("ip", &["-j", "link", "show", "dev", device])?;
        let link: serde_json::Value = serde_json::from_str(&link)?;
        Ok(link[0]["address"].as_str().with_context(|| format!("{device} has no MAC"))?.to_owned())
    }

    /// Loads nftables rules.
    pub fn nft(&self, rules: &str) -> Result<()> {
        self.run_commands(|| process::output_with_input(Command::new("nft").args(["-f", "-"]), rules))
            .with_context(|| format!("{}: {rules}", self.name))?;
        Ok(())
    }

    /// Sets sysctls below `/proc/sys/net`, given as `path=value`.
    pub fn sysctl(&self, settings: &[&str]) -> Result<()> {
        self.run(|| sysctl::write(settings)).with_context(|| self.name.clone())
    }

    /// A command line that opens a shell here.
    pub fn shell(&self) -> String {
        // A pod's path exists in its node's mount namespace only, hence the second nsenter.
        let enter = self.mounts.as_ref().map_or_else(
            || "nsenter".to_owned(),
            |mounts| {
                let nested = if self.is_inside { " nsenter" } else { "" };
                format!("nsenter --mount={}{nested}", mounts.display())
            },
        );
        format!("{enter} --net={}", self.network.display())
    }

    /// Its mount namespace, if it has one of its own.
    pub fn mounts(&self) -> Option<&Path> {
        self.mounts.as_deref()
    }

    /// A command to be run here by [`crate::process::Process`], whose threads cannot enter. It gets mounts and network.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        if let Some(mounts) = &self.mounts {
            command.arg(format!("--mount={}", mounts.display()));
        }
        command.arg(format!("--net={}", self.network.display())).arg("--").arg(program);
        command
    }
}

fn run_on_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread in {name} panicked"))?
}
