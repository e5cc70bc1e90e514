//! One call of a CNI plugin as a whole process: how long, and how much memory at its peak.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use wait4::Wait4 as _;

/// The CNI environment of one call.
pub(crate) struct Call<'a> {
    pub(crate) plugin: &'a Path,
    pub(crate) command: &'a str,
    pub(crate) environment: &'a [(&'a str, &'a str)],
    pub(crate) config: &'a str,
}

/// What one call cost.
pub(crate) struct Cost {
    /// From before `fork` to after `wait`.
    pub(crate) wall_ms: f64,
    /// `ru_maxrss`. The kernel starts it at what the forked parent had, so it is exact only where the plugin needs
    /// more than a freshly forked bench (see `getrusage(2)`); the bench keeps itself small for that.
    pub(crate) peak_mib: f64,
}

impl Call<'_> {
    pub(crate) fn run(&self) -> Result<Cost> {
        let start = Instant::now();
        let mut child = Command::new(self.plugin)
            .env_clear()
            .env("CNI_COMMAND", self.command)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| self.plugin.display().to_string())?;
        child.stdin.take().context("no standard input")?.write_all(self.config.as_bytes())?;
        let mut answer = String::new();
        child.stdout.take().context("no standard output")?.read_to_string(&mut answer)?;
        let usage = child.wait4()?;
        let wall_ms = start.elapsed().as_secs_f64() * 1000.0;
        ensure!(usage.status.success(), "{} {}: {answer}", self.plugin.display(), self.command);
        Ok(Cost { wall_ms, peak_mib: usage.rusage.maxrss as f64 / 1024.0 / 1024.0 })
    }
}
