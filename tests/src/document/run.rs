//! Runs a document on a cluster.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::file::Document;
use super::output::{self, AddressRanges};
use super::step::Step;
use crate::cluster::Cluster;
use crate::{long_form, poll, tools};

/// How long a block may run, in seconds. Helm and `kubectl wait` have limits of their own.
const BLOCK_LIMIT: u32 = 240;
/// How long what a block shows may take to be there.
const RETRY_LIMIT: Duration = Duration::from_mins(1);
/// Variables live on from block to block.
const FRAME: &str = r#"if [ -e "$2" ]; then . "$2"; fi; set -a -euo pipefail; eval "$1"; export -p >"$2""#;

/// Runs all steps; the error names the file, the line and the block.
pub fn run(document: &Document, cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder().join("document");
    fs::create_dir_all(&folder)?;
    for step in document.steps.iter().filter(|step| !step.long || long_form::is_asked_for()) {
        let place = format!("{}:{}", shown_path(&document.path), step.line);
        println!("{place}");
        Runner { cluster, folder: &folder, ranges: &document.ranges }
            .step(step)
            .with_context(|| format!("{place}: {}", step.script))?;
    }
    Ok(())
}

/// From the repository's root, where that is above it.
fn shown_path(path: &Path) -> String {
    let root = tools::workspace();
    path.strip_prefix(&root).unwrap_or(path).display().to_string()
}

struct Runner<'a> {
    cluster: &'a Cluster,
    /// Of the shells' variables; it is there on every machine.
    folder: &'a Path,
    ranges: &'a AddressRanges,
}

impl Runner<'_> {
    fn step(&self, step: &Step) -> Result<()> {
        if !step.retry {
            return self.once(step);
        }
        poll::until("a block that does what the document says", RETRY_LIMIT, || self.once(step))
    }

    fn once(&self, step: &Step) -> Result<()> {
        if step.machines.is_empty() {
            return check(step, &self.administrator(&step.script)?, self.ranges);
        }
        for machine in &step.machines {
            let output = self.machine(machine, &step.script)?;
            check(step, &output, self.ranges).with_context(|| machine.clone())?;
        }
        Ok(())
    }

    /// In the control plane's network, with the files of this machine: the repository is there.
    fn administrator(&self, script: &str) -> Result<Output> {
        let mut command = Command::new("timeout");
        command.arg(BLOCK_LIMIT.to_string()).args(["bash", "-c", FRAME, "bash", script]);
        command.arg(self.folder.join("variables")).current_dir(tools::workspace());
        self.prepare(&mut command)?;
        self.cluster.api_namespaces().run(|| Ok(command.output()?))
    }

    fn machine(&self, name: &str, script: &str) -> Result<Output> {
        let machines = self.cluster.machines();
        let machine = machines.iter().find(|machine| machine.name() == name);
        let mut command = machine.with_context(|| format!("there is no machine {name}"))?.enter()?;
        command.args(["timeout", &BLOCK_LIMIT.to_string(), "bash", "-c", FRAME, "bash", script]);
        command.arg(self.folder.join("variables"));
        self.prepare(&mut command)?;
        command.output().with_context(|| name.to_owned())
    }

    fn prepare(&self, command: &mut Command) -> Result<()> {
        self.cluster.export(command);
        let programs = tools::folder_of_programs()?.join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}:/usr/sbin:/sbin", programs.display()))
            .env("HOME", self.folder);
        Ok(())
    }
}

fn check(step: &Step, output: &Output, ranges: &AddressRanges) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}\n{text}{errors}", output.status);
    let Some(expected) = &step.expected else { return Ok(()) };
    output::compare(expected, &text, ranges)
        .map_err(|difference| anyhow!("line {}: {difference}\nof the output\n{text}{errors}", expected.line))
}
