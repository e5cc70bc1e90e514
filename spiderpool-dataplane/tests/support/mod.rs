//! A private BPF file system and the programs' object, for tests that need root.
#![allow(dead_code, reason = "each test binary uses a part")]
#![expect(clippy::unwrap_used, reason = "tests")]

pub(crate) mod btf;
pub(crate) mod older;
pub(crate) mod run;

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use spiderpool_dataplane::{Dataplane, Sizes};
use spiderpool_ebpf_common::model::pod::SHARE;

/// A BPF file system that only this thread sees; it goes with the thread.
pub(crate) struct BpfFs {
    dir: tempfile::TempDir,
}

/// Small maps: a test makes many.
pub(crate) const SIZES: Sizes =
    Sizes { nics: 64, cidrs: 256, arrivals: 1024, nat: 1024, link_flows: 1024, per_pod: SHARE };

/// The object under test.
pub(crate) fn object() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/spiderpool.o");
    std::env::var_os("SPIDERPOOL_BPF_OBJECT").map_or_else(default, PathBuf::from)
}

/// Whether the test can run here. If not: says why, and fails where `CI=true`.
pub(crate) fn can_run() -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "it needs root".to_owned()
    } else if !object().exists() {
        format!("{} is missing: cargo xtask build-ebpf", object().display())
    } else {
        return true;
    };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot run in CI: {why}");
    eprintln!("skipped: {why}");
    false
}

/// How long the machine has been up: what the programs and the agent take for the time.
pub(crate) fn uptime() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// Waits until the machine has been up for so long: virtual ones start with the tests, and before that nothing in a map can be so
/// old.
pub(crate) fn wait_until_up(long: Duration) {
    std::thread::sleep(long.saturating_sub(uptime()));
}

/// How many random inputs a test takes: fewer than it would where `PROPTEST_CASES` says so.
pub(crate) fn inputs(most: u32) -> u32 {
    let asked_for = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    asked_for.map_or(most, |cases: u32| cases.min(most))
}

impl BpfFs {
    /// Mounts it in a mount namespace of this thread.
    pub(crate) fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), none).unwrap();
        Self { dir }
    }

    /// Where the dataplane pins.
    pub(crate) fn pins(&self) -> PathBuf {
        self.dir.path().join("spiderpool/v1")
    }

    /// Loads the dataplane as the agent does.
    pub(crate) fn load(&self) -> Dataplane {
        Dataplane::load(&object(), &self.pins(), &SIZES).unwrap()
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}
