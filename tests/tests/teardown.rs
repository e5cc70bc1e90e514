//! What the bench starts ends with the process that started it, also when that is killed.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use spiderpool_tests::control_plane::{Crds, Options};
use spiderpool_tests::topology::Topology;
use spiderpool_tests::{poll, privilege, teardown};

const LIMIT: Duration = Duration::from_secs(10);
const VICTIM: &str = "SPIDERPOOL_TESTS_VICTIM";

fn bare() -> Options {
    Options { crds: Crds::None, ..Options::default() }
}

#[test]
fn dropping_a_topology_leaves_nothing() {
    if env::var_os(VICTIM).is_some() || !privilege::root_or_skip("dropping_a_topology_leaves_nothing") {
        return;
    }
    let before = teardown::Snapshot::take().unwrap();
    let topology = Topology::start(bare(), 1).unwrap();
    let state = topology.state.path().to_owned();
    drop(topology);
    before.check_nothing_left().unwrap();
    assert!(!state.exists(), "{} is left", state.display());
}

/// Runs in a child of the test below, which kills it.
#[test]
fn victim() {
    if env::var_os(VICTIM).is_none() {
        return;
    }
    let topology = Topology::start(bare(), 1).unwrap();
    println!("\nstate {}", topology.state.path().display());
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_test_leaves_nothing() {
    if env::var_os(VICTIM).is_some() || !privilege::root_or_skip("a_killed_test_leaves_nothing") {
        return;
    }
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let state = output
        .lines()
        .find_map(|line| Some(line.unwrap().strip_prefix("state ")?.to_owned()))
        .expect("the victim ended early");
    let started = with_argument(&state);
    assert!(!started.is_empty(), "no process has {state} on its command line");
    child.kill().unwrap();
    child.wait().unwrap();
    poll::until("the end of all it started", LIMIT, || {
        let left: BTreeSet<_> = started.iter().filter(|id| Path::new("/proc").join(id).exists()).collect();
        ensure!(left.is_empty(), "processes {left:?} are left");
        ensure!(!Path::new(&state).exists(), "{state} is left");
        Ok(())
    })
    .unwrap();
}

/// Processes with `text` on their command line.
fn with_argument(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(text) {
            found.insert(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found
}
