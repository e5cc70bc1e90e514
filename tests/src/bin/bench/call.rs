//! One call of a CNI plugin as a whole process: how long, and how much memory at its peak.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// The CNI environment of one call.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) plugin: &'a Path,
    pub(crate) command: &'a str,
    pub(crate) environment: &'a [(&'a str, &'a str)],
    pub(crate) config: &'a [u8],
}

impl Call<'_> {
    fn spawn(&self) -> Result<Child> {
        Command::new(self.plugin)
            .env_clear()
            .env("CNI_COMMAND", self.command)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.plugin.display().to_string())
    }

    /// Milliseconds from before `fork` to after `wait`.
    pub(crate) fn wall_ms(&self) -> Result<f64> {
        let start = Instant::now();
        let mut child = self.spawn()?;
        child.stdin.take().context("no standard input")?.write_all(self.config)?;
        let mut answer = String::new();
        child.stdout.take().context("no standard output")?.read_to_string(&mut answer)?;
        let status = child.wait()?;
        let wall_ms = start.elapsed().as_secs_f64() * 1000.0;
        ensure!(status.success(), "{} {}: {answer}", self.plugin.display(), self.command);
        Ok(wall_ms)
    }

    /// The highest resident memory in MiB: `VmHWM`, read where the process stops on its way out.
    ///
    /// Not `ru_maxrss`: that begins with the memory of whoever forked (`exec_mmap()` in fs/exec.c keeps it). The
    /// plugin waits for its standard input, so it is traced before it does anything.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        let mut child = self.spawn()?;
        let process = Pid::from_raw(child.id().cast_signed());
        ptrace::seize(process, ptrace::Options::PTRACE_O_TRACEEXIT)?;
        child.stdin.take().context("no standard input")?.write_all(self.config)?;
        let peak = loop {
            match waitpid(process, None)? {
                WaitStatus::PtraceEvent(_, _, event) if event == ptrace::Event::PTRACE_EVENT_EXIT as i32 => {
                    break peak(process)?;
                }
                WaitStatus::Stopped(_, signal) => ptrace::cont(process, signal)?,
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                    bail!("it ended before it could be read")
                }
                _ => ptrace::cont(process, None)?,
            }
        };
        ptrace::cont(process, None)?;
        let output = child.wait_with_output()?;
        let answer = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{} {}: {answer}", self.plugin.display(), self.command);
        Ok(peak)
    }
}

fn peak(process: Pid) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
