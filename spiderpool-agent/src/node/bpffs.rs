//! The BPF file system, where programs and maps outlive the agent.

use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount as mount_fs};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

use super::mount_namespace::{MountNamespaceError, run_in};

/// The BPF file system cannot be mounted.
#[derive(Debug, Error)]
pub enum BpffsError {
    /// At this place.
    #[error("BPF file system at {}: {operation}: {source}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// In the node's mount namespace.
    #[error(transparent)]
    Namespace(#[from] MountNamespaceError),
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
    run_in(namespace, || mount(path))?
}

/// Mounts it at `path`, unless it is mounted there.
pub fn mount(path: &Path) -> Result<Mounted, BpffsError> {
    let failed = |operation| {
        move |errno: nix::Error| BpffsError::Mount { path: path.to_owned(), operation, source: errno.into() }
    };
    let is_mounted = || {
        Ok::<_, BpffsError>(
            statfs(path).map_err(failed("statfs (is the kernel built with BPF?)"))?.filesystem_type()
                == BPF_FS_MAGIC,
        )
    };
    if is_mounted()? {
        return Ok(Mounted::Already);
    }
    // As systemd mounts it.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_fs(Some("bpf"), path, Some("bpf"), flags, Some("mode=0700")).map_err(failed("mount"))?;
    Ok(Mounted::Now)
}
