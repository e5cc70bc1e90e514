//! Kinds of links that not every kernel makes: tests of them run where it does, and on other kernels by `cargo xtask vmtest`.

use std::env;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};

/// Set by `cargo xtask vmtest`, whose kernels make all of them: there, nothing is skipped.
const GUEST: &str = "SPIDERPOOL_VMTEST";

/// A kind of link, on a parent where it needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// 802.1Q
    Vlan,
    /// Its layer 2
    Ipvlan,
    /// Of several links
    Bond,
}

impl LinkKind {
    /// The arguments of `ip link add` for one on the link `parent`.
    fn arguments(self) -> &'static str {
        match self {
            Self::Vlan => "link parent name probe type vlan id 5",
            Self::Ipvlan => "link parent name probe type ipvlan mode l2",
            Self::Bond => "name probe type bond",
        }
    }

    /// Whether this kernel makes such links; it is asked once.
    fn is_known(self) -> Result<bool> {
        static FOUND: [OnceLock<bool>; 3] = [const { OnceLock::new() }; 3];
        let found = &FOUND[self as usize];
        if let Some(is_known) = found.get() {
            return Ok(*is_known);
        }
        let is_known = self.make()?;
        Ok(*found.get_or_init(|| is_known))
    }

    /// Whether one can be made. An error that says something else is one.
    fn make(self) -> Result<bool> {
        let make = || -> Result<bool> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let add = |arguments: &str| {
                Command::new("ip").args(["link", "add"]).args(arguments.split(' ')).output()
            };
            ensure!(add("parent type veth peer name peer")?.status.success(), "cannot make a veth pair");
            let output = add(self.arguments())?;
            let text = String::from_utf8_lossy(&output.stderr);
            let is_unknown = text.contains("Unknown device type") || text.contains("not supported");
            ensure!(output.status.success() || is_unknown, "{self:?}: {text}");
            Ok(output.status.success())
        };
        thread::scope(|scope| scope.spawn(make).join()).map_err(|_| anyhow!("a thread panicked"))?
    }
}

/// Whether the kernel makes links of all these kinds; if not, says that `test` is skipped, also with `CI=true`.
pub fn known_or_skip(test: &str, kinds: &[LinkKind]) -> Result<bool> {
    for kind in kinds {
        if !kind.is_known()? {
            ensure!(env::var_os(GUEST).is_none(), "{test}: this kernel makes no links of the kind {kind:?}");
            eprintln!(
                "skipped: {test}: the kernel has no module for {kind:?}; run it by `cargo xtask vmtest`"
            );
            return Ok(false);
        }
    }
    Ok(true)
}
