//! The machines of a cluster, from outside.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use spiderpool_testbox::control::{self, Request, Service, Status};
use spiderpool_testbox::machine::Spec;
use spiderpool_testbox::{cgroup, cleanup};

use super::programs::testbox;
use crate::namespaces::Namespaces;
use crate::{poll, process};

const START_LIMIT: Duration = Duration::from_mins(1);
/// Where programs of the distribution are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of each log an error shows.
const TAIL_LINES: usize = 8;

/// A machine, running or switched off. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct Machine {
    spec: Spec,
    /// Another one after each boot, 0 if it was found switched off.
    process: Arc<AtomicU32>,
}

impl Machine {
    /// Makes a machine's folder; the machine is off.
    pub(super) fn create(spec: Spec) -> Result<Self> {
        spec.write()?;
        Ok(Self { spec, process: Arc::default() })
    }

    /// A machine that was made before.
    pub(super) fn find(folder: &Path) -> Result<Self> {
        let spec = Spec::read(folder)?;
        let process = match fs::read_to_string(process_file(folder)) {
            Ok(text) => text.trim().parse::<u32>()?,
            // Whoever made it was killed before it ran.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error).with_context(|| spec.name.clone()),
        };
        let machine = Self { spec, process: Arc::new(process.into()) };
        if !machine.is_on() {
            // The id may be another program's by now.
            machine.process.store(0, Ordering::Relaxed);
        }
        Ok(machine)
    }

    /// Switches it on and waits until its process 1 takes requests.
    pub(super) fn boot(&self) -> Result<()> {
        let Spec { name, folder, .. } = &self.spec;
        let started = process::output(Command::new(testbox()?).arg("start").arg(folder))
            .with_context(|| name.clone())?;
        let process = started.trim().parse().with_context(|| format!("process id {started:?}"))?;
        fs::write(process_file(folder), started)?;
        self.process.store(process, Ordering::Relaxed);
        poll::until(&format!("machine {name}"), START_LIMIT, || self.services())
            .with_context(|| tail(&self.spec.log()))?;
        self.namespaces().ip("link set lo up")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The id of its process 1.
    pub fn process(&self) -> u32 {
        self.process.load(Ordering::Relaxed)
    }

    /// Its folder: logs, and its disk below it.
    pub fn folder(&self) -> &Path {
        &self.spec.folder
    }

    /// All its namespaces.
    pub fn namespaces(&self) -> Namespaces {
        Namespaces::of_machine(&self.spec.name, self.process())
    }

    /// Its network, seen with the files of the real machine.
    pub fn network(&self) -> Namespaces {
        Namespaces::network_of(&self.spec.name, self.process())
    }

    /// Whether it is switched on.
    pub fn is_on(&self) -> bool {
        cgroup::processes(&self.spec.group).is_ok_and(|all| all.contains(&self.process().cast_signed()))
    }

    /// A command that runs the command appended to it in all namespaces and cgroups.
    pub fn enter(&self) -> Result<Command> {
        ensure!(self.is_on(), "{} is switched off", self.spec.name);
        let mut command = Command::new(testbox()?);
        command.args(["enter", &self.process().to_string(), "--"]);
        Ok(command)
    }

    /// Keeps a program running.
    pub(super) fn start(&self, name: &str, command: Vec<String>) -> Result<()> {
        // Not the path of whoever starts the cluster.
        let environment = [("PATH", PATH), ("HOME", "/root")].map(|(key, value)| (key.into(), value.into()));
        let service = Service {
            name: name.to_owned(),
            command,
            environment: BTreeMap::from(environment),
            log: self.log(name),
        };
        self.request(&Request::Start(service))
    }

    /// Ends a service for good.
    pub(super) fn stop(&self, service: &str) -> Result<()> {
        self.request(&Request::Stop(service.to_owned()))
    }

    /// SIGKILL; it is restarted a moment later.
    pub(super) fn kill(&self, service: &str) -> Result<()> {
        self.request(&Request::Kill(service.to_owned()))
    }

    /// SIGKILL, and it is not restarted.
    pub(super) fn remove(&self, service: &str) -> Result<()> {
        self.request(&Request::Remove(service.to_owned()))
    }

    fn request(&self, request: &Request) -> Result<()> {
        control::send(self.process(), request).map(drop).with_context(|| self.spec.name.clone())
    }

    /// What it runs.
    pub fn services(&self) -> Result<Vec<Status>> {
        control::send(self.process(), &Request::Services).with_context(|| self.spec.name.clone())
    }

    /// The log of a service.
    pub fn log(&self, service: &str) -> PathBuf {
        self.spec.folder.join(format!("{service}.log"))
    }

    /// Ends everything in it at once. Its disk stays.
    pub(super) fn power_off(&self) -> Result<()> {
        cleanup::end(&self.spec.group).with_context(|| self.spec.name.clone())
    }

    /// The ends of all its logs, for errors.
    pub(super) fn diagnosis(&self) -> String {
        let mut text = format!("the logs of {} in {} end so:", self.spec.name, self.spec.folder.display());
        for entry in fs::read_dir(&self.spec.folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                let name = entry.file_name().display().to_string();
                text.extend(["\n--- ", &name, "\n", &tail(&entry.path())]);
            }
        }
        text
    }
}

fn process_file(folder: &Path) -> PathBuf {
    folder.join("pid")
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
