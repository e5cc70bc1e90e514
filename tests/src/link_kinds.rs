//! Kinds of links that not every kernel makes: tests of them run where it does, and on other kernels by `cargo xtask vmtest`.

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::kernel_version;
use crate::netkit::{Mode, NewNetkit};

/// Set by `cargo xtask vmtest`, whose kernels make all of them that are not newer: there, nothing else is skipped.
pub(crate) const IN_GUEST: &str = "SPIDERPOOL_VMTEST";

/// A kind of link, on a parent where it needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// 802.1Q
    Vlan,
    /// Its layer 2
    Ipvlan,
    /// Of several links
    Bond,
    /// A pair, since Linux 6.7
    Netkit,
}

impl LinkKind {
    /// The arguments of `ip link add` for one on the link `parent`; none where ip(8) may be older than the kind.
    fn arguments(self) -> Option<&'static str> {
        match self {
            Self::Vlan => Some("link parent name probe type vlan id 5"),
            Self::Ipvlan => Some("link parent name probe type ipvlan mode l2"),
            Self::Bond => Some("name probe type bond"),
            Self::Netkit => None,
        }
    }

    /// The first version of Linux that makes such links, where not all do that tests run on.
    fn since(self) -> (u32, u32) {
        if self == Self::Netkit { (6, 7) } else { (0, 0) }
    }

    /// Whether this kernel makes such links; it is asked once.
    fn is_known(self) -> Result<bool> {
        static FOUND: [OnceLock<bool>; 4] = [const { OnceLock::new() }; 4];
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
            let Some(own) = self.arguments() else {
                let (name, peer_name, peer_netns) = ("probe", "peer", Path::new("/proc/thread-self/ns/net"));
                return NewNetkit { mode: Mode::L3, name, peer_name, peer_netns, mtu: 1500 }.add();
            };
            let add = |arguments: &str| {
                Command::new("ip").args(["link", "add"]).args(arguments.split(' ')).output()
            };
            ensure!(add("parent type veth peer name peer")?.status.success(), "cannot make a veth pair");
            let output = add(own)?;
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
            let is_too_old = kernel_version::read()? < kind.since();
            ensure!(
                env::var_os(IN_GUEST).is_none() || is_too_old,
                "{test}: this kernel makes no links of the kind {kind:?}"
            );
            eprintln!(
                "skipped: {test}: the kernel has no module for {kind:?}; run it by `cargo xtask vmtest`"
            );
            return Ok(false);
        }
    }
    Ok(true)
}
