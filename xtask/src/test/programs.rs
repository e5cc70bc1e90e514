//! Running several test programs at a time.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Seek as _, Write as _},
    panic,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Error, Result, ensure};

use super::Environment;
use crate::{process, test_program::TestProgram, vmtest};

/// Cargo runs one at a time, and most of a test's time is waiting: for a watch, a deadline, a process that starts.
const AT_A_TIME: usize = 4;
/// Tests whose file is named so start whole clusters: they have the machine to themselves.
const ALONE: &str = "cluster_";
/// How much of each failed program's output is shown once more at the end: what is above may be thousands of lines, and
/// whoever keeps logs may keep only the last of them.
const SHOWN_AGAIN: usize = 8 << 10;
/// Below this line libtest repeats the output of each failed test.
const FAILURES: &str = "\nfailures:\n";

/// A program with a failed test.
struct Failed {
    program: TestProgram,
    output: Vec<u8>,
}

/// Runs all, on `other_kernels` beside them, and says at the end which have failed.
pub(super) fn run(
    environment: &Environment<'_>,
    programs: Vec<TestProgram>,
    other_kernels: Option<&vmtest::Run>,
) -> Result<()> {
    let (alone, together) = in_order(programs);
    let together = Mutex::new(VecDeque::from(together));
    let failed = Mutex::new(Vec::new());
    let next = || together.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let run = |program: TestProgram| {
        let failure = run_one(environment, &program)
            .unwrap_or_else(|error| Some(format!("{}: {error:#}\n", program.path.display()).into_bytes()));
        if let Some(output) = failure {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(Failed { program, output });
        }
    };
    let other_kernels = thread::scope(|scope| {
        // Its time is an emulator's: it begins first, so that the others' waiting is used.
        let other_kernels = other_kernels.map(|run| scope.spawn(|| run_buffered(run, environment)));
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(program) = next() {
                    run(program);
                }
            });
        }
        let joined = other_kernels.map(thread::ScopedJoinHandle::join);
        joined.map_or(Ok(()), |joined| joined.unwrap_or_else(|panic| panic::resume_unwind(panic)))
    });
    alone.into_iter().for_each(run);
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut stdout = io::stdout().lock();
    for Failed { program, output } in &failed {
        writeln!(stdout, "     Failed in {} of {}", program.target, program.package)?;
        writeln!(stdout, "{}\n", of_failures(&String::from_utf8_lossy(output)))?;
    }
    drop(stdout);
    environment.check(report(&failed, other_kernels.err()))
}

/// The part of a test program's output that says what has failed, or the last part of all.
fn of_failures(output: &str) -> &str {
    let output = output.split_once(FAILURES).map_or(output, |(_, failures)| failures);
    let last = output.ceil_char_boundary(output.len().saturating_sub(SHOWN_AGAIN));
    output[last..].trim()
}

fn report(failed: &[Failed], other_kernels: Option<Error>) -> Result<()> {
    let mut reports = Vec::new();
    if !failed.is_empty() {
        let names: Vec<_> = failed
            .iter()
            .map(|Failed { program, .. }| format!("{} of {}", program.target, program.package))
            .collect();
        reports.push(format!(
            "tests failed in {}; their output is above. Run one again with `cargo xtask test NAME`",
            names.join(", ")
        ));
    }
    if let Some(error) = other_kernels {
        reports.push(format!(
            "tests on other kernels {error:#}; their output is above. Run them again with `cargo xtask vmtest`"
        ));
    }
    ensure!(reports.is_empty(), "{}", reports.join("\n"));
    Ok(())
}

/// Those that run alone, and the others. Integration tests come first, so that in the end no long one runs with nothing
/// beside it.
fn in_order(programs: Vec<TestProgram>) -> (Vec<TestProgram>, Vec<TestProgram>) {
    let (alone, mut together): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| program.target.starts_with(ALONE));
    together.sort_by_key(|program| !program.is_integration_test);
    (alone, together)
}

/// Shows its output when it has ended: that of several at a time could not be read. The output again if a test failed.
fn run_one(environment: &Environment<'_>, program: &TestProgram) -> Result<Option<Vec<u8>>> {
    if environment.is_over() {
        return Ok(Some(b"not run: the time is over".to_vec()));
    }
    let start = Instant::now();
    let (output, succeeded) = output(&mut environment.of(program.command()))?;
    let (target, package) = (&program.target, &program.package);
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "     Running {target} of {package}")?;
    stdout.write_all(&output)?;
    writeln!(stdout, "{target} of {package}: {:.1} s\n", start.elapsed().as_secs_f32())?;
    Ok((!succeeded).then_some(output))
}

/// Shows the output when the last kernel has ended.
fn run_buffered(run: &vmtest::Run, environment: &Environment<'_>) -> Result<()> {
    let mut output = Vec::new();
    let result = run.start(environment.deadline(), |fresh| output.extend_from_slice(fresh));
    io::stdout().lock().write_all(&output)?;
    result
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
    use std::path::PathBuf;

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
    fn what_has_failed_is_shown_again_and_not_more_than_that() {
        let one =
            "running 2 tests\ntest a ... ok\n\nfailures:\n\n---- b stdout ----\nwhy\n\nfailures:\n    b\n";
        assert_eq!(of_failures(one), "---- b stdout ----\nwhy\n\nfailures:\n    b");
        let killed = format!("{}end", "ä".repeat(SHOWN_AGAIN));
        let shown = of_failures(&killed);
        assert!(shown.ends_with("äend") && (SHOWN_AGAIN - 1..=SHOWN_AGAIN).contains(&shown.len()));
    }

    #[test]
    fn cluster_tests_run_alone_and_integration_tests_first() {
        let program = |target: &str, is_integration_test| TestProgram {
            package: "p".into(),
            target: target.into(),
            path: PathBuf::new(),
            folder: PathBuf::new(),
            is_integration_test,
        };
        let (unit, flows, cluster) =
            (program("core", false), program("flows", true), program("cluster_flows", true));
        let all = vec![unit.clone(), cluster.clone(), flows.clone()];
        assert_eq!(in_order(all), (vec![cluster], vec![flows, unit]));
    }
}
