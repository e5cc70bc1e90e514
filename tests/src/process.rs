//! Child processes that cannot outlive this one, and commands whose errors name the command.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{ffi::OsStr, io};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::poll;

/// How much of a log an error shows.
const TAIL_LINES: usize = 15;

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a child from a thread that lives as long as this process: the kernel sends the parent death signal when the
/// *thread* that started a child ends, and test threads end early.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in orders {
                // The asker waits for the answer; if it is gone, the child is killed by dropping nothing: it dies with us.
                drop(answer.send(command.spawn()));
            }
        });
        sender
    });
    let name = format!("{command:?}");
    let (answer, child) = channel();
    spawner.send((command, answer)).ok().context("the spawning thread is gone")?;
    child.recv().context("the spawning thread gave no answer")?.with_context(|| format!("start {name}"))
}

/// A running child with its log. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `log` (appended, so that a restart keeps what was before).
    pub fn start(name: &str, command: &Command, log: &Path) -> Result<Self> {
        let output =
            File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        let mut guarded = guarded(command);
        guarded.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        Ok(Self { name: name.to_owned(), child: spawn(guarded)?, log: log.to_owned() })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of the log if the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}): {}", self.name, self.tail());
        }
        Ok(())
    }

    /// Sends SIGTERM and waits; fails (and kills) if the process does not end within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.id().cast_signed()), Signal::SIGTERM).with_context(|| self.name.clone())?;
        let ended = poll::until(&format!("end of {}", self.name), limit, || {
            self.child.try_wait()?.context("still running")
        });
        if ended.is_err() {
            self.kill()?;
        }
        ended
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The whole log, that of earlier processes with the same file included.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of the log.
    pub fn tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}

/// The command with the order to be killed when the thread that starts it ends.
fn guarded(command: &Command) -> Command {
    let mut guarded = Command::new("setpriv");
    guarded.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => guarded.env(key, value),
            None => guarded.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        guarded.current_dir(folder);
    }
    guarded
}

/// Runs a command to its end; its standard output, or an error with the command line and what it printed.
pub fn output(command: &Command) -> Result<String> {
    let started = Instant::now();
    let output = guarded(command).output().with_context(|| format!("start {command:?}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ({}, {:?}): {}{}", output.status, started.elapsed(), stderr.trim(), stdout.trim());
    }
    Ok(stdout)
}

/// As [`output`], with `input` on standard input.
pub fn output_with_input(command: &Command, input: &str) -> Result<String> {
    let mut child = guarded(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut pipe = child.stdin.take().context("no standard input")?;
    // A command that ends without reading all of its input tells why on standard error.
    drop(pipe.write_all(input.as_bytes()));
    drop(pipe);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`output`], with a file as standard input.
pub fn output_from_file(command: &Command, input: File) -> Result<String> {
    let output = guarded(command).stdin(input).output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ({}): {}", output.status, stderr.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`output`], from words.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Result<String> {
    output(Command::new(program).args(arguments))
}
