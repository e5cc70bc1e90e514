//! Keeps services running, as systemd does, and reaps every orphan of the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use crate::control::{Service, Status};

/// Between the end of a service and its restart.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a service may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Between looks for children while there is none.
const IDLE: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Entry {
    service: Service,
    /// Whether it is restarted when it ends.
    is_wanted: bool,
    process: Option<Pid>,
    restarts: u32,
}

/// All services of the machine.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    entries: Mutex<BTreeMap<String, Entry>>,
    ended: Condvar,
}

impl Supervisor {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start(&self, service: Service) -> Result<()> {
        if self.lock().contains_key(&service.name) {
            self.stop(&service.name)?;
        }
        // The lock is held over the start: the reaper cannot see the end of a process that has no entry yet.
        let mut entries = self.lock();
        let process = spawn(&service)?;
        entries.insert(
            service.name.clone(),
            Entry { service, is_wanted: true, process: Some(process), restarts: 0 },
        );
        Ok(())
    }

    pub(super) fn stop(&self, name: &str) -> Result<()> {
        if !self.end(name, Signal::SIGTERM)? {
            self.remove(name)?;
            bail!("{name} did not end within {STOP_LIMIT:?} and was killed");
        }
        self.lock().remove(name);
        Ok(())
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        self.end(name, Signal::SIGKILL)?;
        self.lock().remove(name);
        Ok(())
    }

    /// Ends a service that stays in the list, unwanted; whether it has ended in time.
    fn end(&self, name: &str, how: Signal) -> Result<bool> {
        let mut entries = self.lock();
        let entry = entries.get_mut(name).with_context(|| format!("no service {name} here"))?;
        entry.is_wanted = false;
        let Some(process) = entry.process else { return Ok(true) };
        signal(process, how)?;
        let waited = self.ended.wait_timeout_while(entries, STOP_LIMIT, |_| kill(process, None).is_ok());
        drop(waited);
        Ok(kill(process, None).is_err())
    }

    pub(super) fn kill(&self, name: &str) -> Result<()> {
        let entries = self.lock();
        let entry = entries.get(name).with_context(|| format!("no service {name} here"))?;
        entry.process.map_or(Ok(()), |process| signal(process, Signal::SIGKILL))
    }

    pub(super) fn status(&self) -> Vec<Status> {
        let entries = self.lock();
        let status = |(name, entry): (&String, &Entry)| Status {
            name: name.clone(),
            process: entry.process.map(Pid::as_raw),
            restarts: entry.restarts,
        };
        entries.iter().map(status).collect()
    }

    /// Waits for the end of children, for ever.
    pub(super) fn reap(self: &Arc<Self>) {
        loop {
            // Only looked at first: whoever starts a process may have to wait for it himself, under the lock.
            let look = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let Ok(Some(process)) = look.map(|status| status.pid()) else {
                thread::sleep(IDLE);
                continue;
            };
            let mut entries = self.lock();
            let status = waitpid(process, Some(WaitPidFlag::WNOHANG));
            let ended = entries.values_mut().find(|entry| entry.process == Some(process));
            if let (Ok(status), Some(entry)) = (status, ended) {
                entry.process = None;
                if entry.is_wanted {
                    self.restart_later(&entry.service, status);
                }
            }
            drop(entries);
            self.ended.notify_all();
        }
    }

    fn restart_later(self: &Arc<Self>, service: &Service, status: WaitStatus) {
        eprintln!("{} ended: {status:?}", service.name);
        let (supervisor, name) = (Arc::clone(self), service.name.clone());
        thread::spawn(move || {
            thread::sleep(PAUSE);
            let mut entries = supervisor.lock();
            let Some(entry) =
                entries.get_mut(&name).filter(|entry| entry.is_wanted && entry.process.is_none())
            else {
                return;
            };
            entry.restarts += 1;
            match spawn(&entry.service) {
                Ok(process) => entry.process = Some(process),
                Err(error) => eprintln!("restart of {name}: {error:#}"),
            }
        });
    }
}

fn signal(process: Pid, signal: Signal) -> Result<()> {
    match kill(process, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{signal} to process {process}")),
    }
}

fn spawn(service: &Service) -> Result<Pid> {
    let (program, arguments) = service.command.split_first().context("no program")?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(&service.log)
        .with_context(|| service.log.display().to_string())?;
    let child = Command::new(program)
        .args(arguments)
        .envs(&service.environment)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    Ok(Pid::from_raw(child.id().cast_signed()))
}
