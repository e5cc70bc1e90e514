//! What test programs are started with: the variables that they read, and a time limit.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{architecture::Architecture, process, workspace::Workspace};

/// Read by `spiderpool_tests::long_form`, and by the test `policy_routing` of spiderpool-dataplane.
const LONG: &str = "SPIDERPOOL_LONG_TESTS";
/// Inputs of each property that does not set a number itself; proptest's own is 256.
const RANDOM_INPUTS: (&str, &str) = ("PROPTEST_CASES", "10000");
/// Read by the tests of images: programs for another architecture, and what runs them here.
const OTHER_ARCHITECTURE: (&str, &str) = ("SPIDERPOOL_OTHER_BIN", "SPIDERPOOL_EMULATOR");
/// Programs that do not end by SIGTERM are killed after so many seconds.
const KILL_AFTER: &str = "--kill-after=30";

pub(super) struct Environment<'a> {
    workspace: &'a Workspace,
    long: bool,
    time_limit: Option<Duration>,
    /// None: what runs is not ended.
    deadline: Option<Instant>,
}

impl<'a> Environment<'a> {
    pub(super) fn new(workspace: &'a Workspace, long: bool, time_limit: Option<Duration>) -> Self {
        let deadline = time_limit.map(|limit| Instant::now() + limit);
        Self { workspace, long, time_limit, deadline }
    }

    /// The same command with the variables, and with what is left of the time.
    pub(super) fn of(&self, mut command: Command) -> Command {
        self.workspace.export(&mut command);
        if self.long {
            let other = Architecture::other();
            let (programs, emulator) = OTHER_ARCHITECTURE;
            command.env(LONG, "1").env(RANDOM_INPUTS.0, RANDOM_INPUTS.1);
            command.env(programs, self.workspace.of(other).bin()).env(emulator, other.emulator());
        }
        match self.deadline {
            Some(deadline) => bounded(&command, deadline.saturating_duration_since(Instant::now())),
            None => command,
        }
    }

    /// When what runs is ended.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// A failure after the deadline is named as what it is.
    pub(super) fn check(&self, result: Result<()>) -> Result<()> {
        match (result, self.time_limit) {
            (Err(_), Some(limit)) if self.is_over() => {
                bail!("the time limit of {} minutes was reached", limit.as_secs() / 60)
            }
            (result, _) => result,
        }
    }
}

/// Under `timeout` of coreutils, which ends the whole process group. That is no longer the terminal's: SIGINT does not
/// reach it, so that it has to end with this process.
fn bounded(command: &Command, left: Duration) -> Command {
    // `timeout 0` would have no limit.
    let seconds = left.as_secs().max(1).to_string();
    let mut bounded = process::command("setpriv");
    bounded
        .args(["--pdeathsig", "TERM", "timeout", KILL_AFTER, &seconds])
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        bounded.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_command_is_the_same_until_its_time_is_over() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $NAME; pwd; exit 3"]).env("NAME", "value").current_dir("/");
        let output = bounded(&command, Duration::from_mins(1)).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!((text.as_str(), output.status.code()), ("value\n/\n", Some(3)));

        let mut endless = Command::new("sh");
        let status = bounded(endless.args(["-c", "sleep 60"]), Duration::ZERO).status().unwrap();
        assert_eq!(status.code(), Some(124));
    }
}
