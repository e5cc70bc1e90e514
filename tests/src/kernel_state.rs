//! What a node or a pod has in the kernel, as lines, to be compared before and after.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::namespaces::Namespaces;
use crate::poll;

const LIMIT: Duration = Duration::from_mins(1);

const LOOKS: &[(&str, &[&str])] = &[
    ("ip", &["-o", "link"]),
    ("ip", &["-o", "address"]),
    ("ip", &["-4", "route", "show", "table", "all"]),
    ("ip", &["-6", "route", "show", "table", "all"]),
    ("ip", &["-4", "neighbor", "show", "nud", "permanent"]),
    ("ip", &["-6", "neighbor", "show", "nud", "permanent"]),
    ("ip", &["-4", "rule"]),
    ("ip", &["-6", "rule"]),
    ("tc", &["qdisc", "show"]),
    ("find", &["/sys/fs/bpf", "/run/netns"]),
];

/// Lines of links, addresses, routes, permanent neighbors, rules, qdiscs, pins and namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelState(BTreeSet<String>);

impl KernelState {
    /// Looks now.
    pub fn of(namespaces: &Namespaces) -> Result<Self> {
        let mut lines = BTreeSet::new();
        for (program, arguments) in LOOKS {
            let output = namespaces.output(program, arguments)?;
            // A new link-local address is tentative for a moment, also without duplicate address detection.
            lines.extend(
                output.lines().map(|line| format!("{program}: {}", line.replace(" tentative", "").trim())),
            );
        }
        Ok(Self(lines))
    }

    /// Waits until `namespaces` is as it was at this look: the kernel removes a namespace's links in its own time.
    pub fn wait_for_return(&self, namespaces: &Namespaces) -> Result<()> {
        poll::until(&format!("{} as it was before", namespaces.name), LIMIT, || {
            let changes = Self::of(namespaces)?.changes(self);
            ensure!(changes.is_empty(), "{changes:#?}");
            Ok(())
        })
    }

    /// What came (`+`) and went (`-`) since `before`.
    pub fn changes(&self, before: &Self) -> Vec<String> {
        let came = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        came.chain(before.0.difference(&self.0).map(|line| format!("- {line}"))).collect()
    }
}
