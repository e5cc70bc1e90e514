//! `testbox enter PROCESS -- COMMAND..`: runs a command in all namespaces and cgroups of a machine.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use crate::cgroup;

/// Mounts come last: the others' files are found by this machine's /proc.
const NAMESPACES: &[(&str, CloneFlags)] = &[
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// Runs the command to its end; its exit code.
pub fn run(process: u32, command: &[String]) -> Result<u8> {
    let (program, arguments) = command.split_first().context("no command")?;
    let files = NAMESPACES
        .iter()
        .map(|(name, flag)| Ok((File::open(format!("/proc/{process}/ns/{name}"))?, *flag)))
        .collect::<Result<Vec<_>>>()
        .with_context(|| format!("the namespaces of process {process}"))?;
    cgroup::join_those_of(process)?;
    for (file, flag) in files {
        setns(file, flag).with_context(|| format!("{flag:?}"))?;
    }
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot start {program} in the machine"))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
