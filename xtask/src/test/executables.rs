//! The test executables of the workspace: which there are, and running several at a time.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Seek as _, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Artifact, TargetKind};

use super::Environment;
use crate::{artifacts, process, workspace::Workspace};

/// Cargo runs one at a time, and most of a test's time is waiting: for a watch, a deadline, a process that starts.
const AT_A_TIME: usize = 4;
/// Tests whose file is named so start whole clusters: they have the machine to themselves.
const ALONE: &str = "cluster_";

/// What cargo has built of one target's tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Executable {
    /// The folder of the package.
    package: String,
    target: String,
    path: PathBuf,
    /// Where cargo runs it.
    folder: PathBuf,
    is_integration_test: bool,
}

/// Builds all tests of the workspace.
pub(super) fn build(workspace: &Workspace) -> Result<Vec<Executable>> {
    let mut cargo = process::cargo(workspace);
    let artifacts = artifacts::built(cargo.args(["test", "--workspace", "--no-run"]))?;
    Ok(artifacts.into_iter().filter_map(Executable::of).collect())
}

/// Runs all, and says at the end which have failed.
pub(super) fn run(environment: &Environment<'_>, executables: Vec<Executable>) -> Result<()> {
    let (alone, together) = in_order(executables);
    let together = Mutex::new(VecDeque::from(together));
    let failed = Mutex::new(Vec::new());
    let next = || together.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let run = |executable: Executable| {
        if !executable.run(environment).unwrap_or_else(|error| {
            eprintln!("{}: {error:#}", executable.path.display());
            false
        }) {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(executable);
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(executable) = next() {
                    run(executable);
                }
            });
        }
    });
    alone.into_iter().for_each(run);
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    environment.check(report(&failed))
}

fn report(failed: &[Executable]) -> Result<()> {
    if !failed.is_empty() {
        let names: Vec<_> =
            failed.iter().map(|failed| format!("{} of {}", failed.target, failed.package)).collect();
        bail!(
            "tests failed in {}; their output is above. Run one again with `cargo xtask test NAME`",
            names.join(", ")
        );
    }
    Ok(())
}

/// Those that run alone, and the others. Integration tests come first, so that in the end no long one runs with nothing
/// beside it.
fn in_order(executables: Vec<Executable>) -> (Vec<Executable>, Vec<Executable>) {
    let (alone, mut together): (Vec<_>, Vec<_>) =
        executables.into_iter().partition(|executable| executable.target.starts_with(ALONE));
    together.sort_by_key(|executable| !executable.is_integration_test);
    (alone, together)
}

impl Executable {
    fn of(artifact: Artifact) -> Option<Self> {
        let path = artifact.executable.filter(|_| artifact.profile.test)?.into_std_path_buf();
        let folder = artifact.manifest_path.parent()?;
        Some(Self {
            package: folder.file_name()?.to_owned(),
            target: artifact.target.name,
            path,
            folder: folder.as_std_path().to_owned(),
            is_integration_test: artifact.target.kind.contains(&TargetKind::Test),
        })
    }

    /// Shows its output when it has ended: that of several at a time could not be read. `false` if a test failed.
    fn run(&self, environment: &Environment<'_>) -> Result<bool> {
        if environment.is_over() {
            return Ok(false);
        }
        let start = Instant::now();
        let mut command = process::command(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        let (output, succeeded) = output(&mut environment.of(command))?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "     Running {} of {}", self.target, self.package)?;
        stdout.write_all(&output)?;
        writeln!(stdout, "{} of {}: {:.1} s\n", self.target, self.package, start.elapsed().as_secs_f32())?;
        Ok(succeeded)
    }
}

/// What a command prints on both streams, as it comes, and whether it succeeded. Not through a pipe: a process that
/// the command leaves behind would hold it open.
fn output(command: &mut Command) -> Result<(Vec<u8>, bool)> {
    let mut file = tempfile::tempfile()?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
    let status = command.status().with_context(|| format!("cannot start `{}`", process::typed(command)))?;
    let mut output = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut output)?;
    Ok((output, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_ends_with_the_command_and_not_with_what_it_leaves_behind() {
        let start = Instant::now();
        let script = "echo out; echo err >&2; sleep 60 & exit 3";
        let (output, succeeded) = output(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!((String::from_utf8(output).unwrap().as_str(), succeeded), ("out\nerr\n", false));
        assert!(start.elapsed().as_secs() < 50);
    }

    #[test]
    fn cluster_tests_run_alone_and_integration_tests_first() {
        let executable = |target: &str, is_integration_test| Executable {
            package: "p".into(),
            target: target.into(),
            path: PathBuf::new(),
            folder: PathBuf::new(),
            is_integration_test,
        };
        let (unit, flows, cluster) =
            (executable("core", false), executable("flows", true), executable("cluster_flows", true));
        let all = vec![unit.clone(), cluster.clone(), flows.clone()];
        assert_eq!(in_order(all), (vec![cluster], vec![flows, unit]));
    }
}
