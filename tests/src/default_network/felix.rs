//! A stand-in for Calico's Felix: deletes every route on `cali*` that is not the endpoint's own, at once.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use spiderpool_testbox::calico;

use crate::dual::Dual;
use crate::machine::Machine;
use crate::process;

/// The watcher of one node; stops when dropped.
#[derive(Debug)]
pub struct Felix {
    state: Arc<Mutex<State>>,
    monitor: Pid,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct State {
    endpoints: HashMap<String, Dual>,
    deleted: Vec<String>,
}

impl Felix {
    /// Watches the machine's routes.
    pub fn start(machine: &Machine) -> Result<Self> {
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        let (sender, receiver) = channel();
        let thread = machine.spawn(move || {
            // This thread lives as long as the child, so the parent death signal does not come too early.
            let mut child = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--", "ip", "-o", "monitor", "route"])
                .stdout(Stdio::piped())
                .spawn()?;
            sender.send(Pid::from_raw(child.id().cast_signed()))?;
            let output = child.stdout.take().context("no standard output")?;
            for line in BufReader::new(output).lines() {
                enforce(&line?, &shared);
            }
            child.wait()?;
            Ok(())
        });
        let monitor = receiver.recv().context("ip monitor did not start")?;
        Ok(Self { state, monitor, thread: Some(thread) })
    }

    /// The endpoint behind `host_end`, whose routes may exist.
    pub fn expect(&self, host_end: &str, address: Dual) {
        lock(&self.state).endpoints.insert(host_end.to_owned(), address);
    }

    /// The endpoint is gone.
    pub fn forget(&self, host_end: &str) {
        lock(&self.state).endpoints.remove(host_end);
    }

    /// The routes that were deleted, as ip(8) prints them.
    pub fn deleted(&self) -> Vec<String> {
        lock(&self.state).deleted.clone()
    }
}

impl Drop for Felix {
    fn drop(&mut self) {
        // The child ends only here, so its id is still its own.
        if let Err(error) = kill(self.monitor, Signal::SIGKILL) {
            eprintln!("ip monitor: {error}");
        }
        if let Some(thread) = self.thread.take()
            && !matches!(thread.join(), Ok(Ok(())))
        {
            eprintln!("the watcher of routes on cali* failed");
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn enforce(line: &str, state: &Mutex<State>) {
    let Some((prefix, device)) = calico::foreign_route(line) else { return };
    let mut state = lock(state);
    let endpoint = state.endpoints.get(device).map(|own| [IpAddr::from(own.v4), own.v6.into()]);
    if endpoint.is_some_and(|endpoint| calico::is_own(prefix, &endpoint)) {
        return;
    }
    let family = calico::family_option(line);
    // It may have gone with its device meanwhile.
    drop(process::run("ip", &[family, "route", "del", prefix, "dev", device]));
    state.deleted.push(line.to_owned());
}
