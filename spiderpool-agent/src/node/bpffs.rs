//! The BPF file system, where programs and maps outlive the agent.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount as mount_fs};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

/// The BPF file system cannot be mounted.
#[derive(Debug, Error)]
#[error("BPF file system at {}: {operation}: {source}", path.display())]
pub struct BpffsError {
    path: PathBuf,
    operation: &'static str,
    source: io::Error,
}

/// What [`mount`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounted {
    /// It was mounted already.
    Already,
    /// It was mounted now.
    Now,
}

/// As [`mount`], in the mount namespace that the file `namespace` names: a mount that is made there needs no propagation.
pub fn mount_in(namespace: &Path, path: &Path) -> Result<Mounted, BpffsError> {
    let failed =
        |operation| move |source: io::Error| BpffsError { path: namespace.to_owned(), operation, source };
    let file = File::open(namespace).map_err(failed("open the node's mount namespace"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // A thread that shares its folders with others cannot enter.
            unshare(CloneFlags::CLONE_FS)
                .and_then(|()| setns(&file, CloneFlags::CLONE_NEWNS))
                .map_err(|errno| failed("enter the node's mount namespace")(errno.into()))?;
            mount(path)
        });
        thread.join().unwrap_or_else(|_| Err(failed("thread")(io::Error::other("panic"))))
    })
}

/// Mounts it at `path`, unless it is mounted there.
pub fn mount(path: &Path) -> Result<Mounted, BpffsError> {
    let failed = |operation| {
        move |errno: nix::Error| BpffsError { path: path.to_owned(), operation, source: errno.into() }
    };
    let is_mounted = || {
        Ok(statfs(path).map_err(failed("statfs (is the kernel built with BPF?)"))?.filesystem_type()
            == BPF_FS_MAGIC)
    };
    if is_mounted()? {
        return Ok(Mounted::Already);
    }
    // As systemd mounts it.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_fs(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700")).map_err(failed("mount"))?;
    Ok(Mounted::Now)
}
