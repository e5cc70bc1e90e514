//! What the machine looks like from outside, before and after: a test run must leave no trace.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::poll;
use crate::process;

/// The kernel removes namespaces and programs a moment after their last user is gone.
const LIMIT: Duration = Duration::from_mins(1);

/// Links, mounts and children of this process.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    links: BTreeSet<String>,
    mounts: BTreeSet<String>,
    children: BTreeSet<String>,
}

impl Snapshot {
    /// Looks now.
    pub fn take() -> Result<Self> {
        let links = process::run("ip", &["-br", "link"])?;
        let links = links.lines().filter_map(|line| line.split_whitespace().next());
        // The fifth field of mountinfo is the mount point.
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mounts = mounts.lines().filter_map(|line| line.split_whitespace().nth(4));
        Ok(Self {
            links: links.map(str::to_owned).collect(),
            mounts: mounts.map(str::to_owned).collect(),
            children: children()?,
        })
    }

    /// Fails if something is there that was not there at the time of the snapshot.
    pub fn check_nothing_left(&self) -> Result<()> {
        self.check(|_| true)
    }

    /// The same for the cluster in this folder: of processes, only those that name it. Tests with clusters of their own
    /// run beside this one, in the same process.
    pub fn check_nothing_left_of(&self, cluster: &Path) -> Result<()> {
        let folder = cluster.display().to_string();
        self.check(|child| {
            let id = child.split(' ').next().unwrap_or_default();
            fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.contains(&folder))
        })
    }

    fn check(&self, is_ours: impl Fn(&str) -> bool) -> Result<()> {
        poll::until("a clean machine", LIMIT, || {
            let now = Self::take()?;
            let new = |now: &BTreeSet<String>, then: &BTreeSet<String>| -> Vec<String> {
                now.difference(then).cloned().collect()
            };
            let left = [
                new(&now.links, &self.links),
                new(&now.mounts, &self.mounts),
                new(&now.children, &self.children).into_iter().filter(|child| is_ours(child)).collect(),
            ];
            ensure!(left.iter().all(Vec::is_empty), "links, mounts, processes left: {left:?}");
            Ok(())
        })
    }
}

/// Processes that this process started, by id and name.
fn children() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile.
        let Ok(list) = fs::read_to_string(task?.path().join("children")) else { continue };
        for id in list.split_whitespace() {
            let name = fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            found.insert(format!("{id} {}", name.trim()));
        }
    }
    Ok(found)
}
