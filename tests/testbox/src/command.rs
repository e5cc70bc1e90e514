//! Other programs, whose errors name the command.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a command to its end with `input` on standard input; its standard output.
pub(crate) fn output(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
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
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ({}): {}{}", output.status, stderr.trim(), stdout.trim());
    }
    Ok(stdout)
}
