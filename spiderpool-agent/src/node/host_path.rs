//! Paths as the node names them, in a container that has parts of the node's file system below a folder.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// An open folder of the node.
#[derive(Debug)]
pub(crate) struct HostFolder(OwnedFd);

impl HostFolder {
    /// Opens `path` with `host` as root, so that absolute symbolic links lead to where they do on the node.
    pub(crate) fn open(host: &Path, path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(host, flags, Mode::empty())?;
        let path = path.strip_prefix("/").unwrap_or(path);
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        match openat2(&root, path, how) {
            // Old seccomp profiles do not know this call.
            Err(Errno::ENOSYS | Errno::EPERM) => Ok(Self(open(&host.join(path), flags, Mode::empty())?)),
            opened => Ok(Self(opened?)),
        }
    }

    /// A path to it, while it is open.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}
