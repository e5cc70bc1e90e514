//! Keeps services running, as systemd does, and reaps every orphan of the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
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
        let is_there = self.lock().contains_key(&service.name);
        if is_there && !self.terminate(&service.name)? {
            eprintln!("{} did not end within {STOP_LIMIT:?} and was killed for its successor", service.name);
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
        ensure!(self.terminate(name)?, "{name} did not end within {STOP_LIMIT:?} and was killed");
        Ok(())
    }

    /// Ends a service and takes it off the list; whether SIGTERM was enough.
    fn terminate(&self, name: &str) -> Result<bool> {
        let in_time = self.end(name, Signal::SIGTERM)?;
        if !in_time {
            self.end(name, Signal::SIGKILL)?;
        }
        self.lock().remove(name);
        Ok(in_time)
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
            // What keeps it from starting may pass.
            while let Err(error) = supervisor.restart(&name) {
                eprintln!("restart of {name}: {error:#}");
                thread::sleep(PAUSE);
            }
        });
    }

    /// Starts a service that has ended, if it is wanted still.
    fn restart(&self, name: &str) -> Result<()> {
        let mut entries = self.lock();
        let ended = entries.get_mut(name).filter(|entry| entry.is_wanted && entry.process.is_none());
        if let Some(entry) = ended {
            entry.process = Some(spawn(&entry.service)?);
            entry.restarts += 1;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::time::Instant;

    use super::*;

    #[test]
    fn restart_that_fails_is_tried_again() {
        let folder = env::temp_dir().join(format!("testbox-supervisor-{}", std::process::id()));
        let service = Service {
            name: "late".to_owned(),
            command: vec!["true".to_owned()],
            environment: BTreeMap::new(),
            // It cannot start as long as the folder is not there.
            log: folder.join("log"),
        };
        let supervisor = Arc::new(Supervisor::default());
        let entry = Entry { service: service.clone(), is_wanted: true, process: None, restarts: 0 };
        supervisor.lock().insert(service.name.clone(), entry);
        supervisor.restart_later(&service, WaitStatus::StillAlive);
        // Then the first attempt is over.
        thread::sleep(PAUSE * 2);
        assert_eq!(supervisor.status()[0].process, None);
        fs::create_dir(&folder).unwrap();
        let deadline = Instant::now() + STOP_LIMIT;
        while supervisor.status()[0].process.is_none() {
            assert!(Instant::now() < deadline, "it is not tried again");
            thread::sleep(IDLE);
        }
        let status = &supervisor.status()[0];
        assert_eq!(status.restarts, 1);
        waitpid(Pid::from_raw(status.process.unwrap()), None).unwrap();
        fs::remove_dir_all(&folder).unwrap();
    }
}
