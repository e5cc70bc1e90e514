//! Network namespaces: open one by its path, know it again, run code in it.

mod lock;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, PROC_SUPER_MAGIC, fstatfs};
use thiserror::Error;
use tokio::runtime::Handle;

pub use lock::NetNsLock;

/// An open network namespace. It lives as long as this does, also when its path is removed.
#[derive(Debug)]
pub struct NetNs {
    path: PathBuf,
    file: File,
}

/// Identifies a namespace among those that exist: a path may be used again for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetNsId {
    /// Device of the nsfs file.
    pub dev: u64,
    /// Its inode.
    pub inode: u64,
}

/// A namespace cannot be opened or entered.
#[derive(Debug, Error)]
pub enum NetNsError {
    /// Nothing is at the path.
    #[error("network namespace {} is gone", path.display())]
    Gone {
        /// The path.
        path: PathBuf,
    },
    /// The path cannot be opened.
    #[error("network namespace {} cannot be opened: {source}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path leads to another namespace, and no process that can be seen is in the one that is looked for.
    #[error(
        "network namespace {} (inode {inode}) cannot be reached: neither its path nor a process in it is visible here; \
         an agent needs the node's PID namespace (hostPID) and the capability SYS_PTRACE for it, or its folder as a mount",
        path.display()
    )]
    Unreachable {
        /// The path.
        path: PathBuf,
        /// Inode of its nsfs file.
        inode: u64,
    },
    /// The path is a file, but not of a network namespace: the runtime unmounted it.
    #[error("{} is not a network namespace", path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// `setns` or the thread for it failed.
    #[error("network namespace {} cannot be entered: {source}", path.display())]
    Enter {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl NetNs {
    /// Opens the namespace at `path`, for example `/var/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetNsError> {
        let path = path.as_ref().to_path_buf();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NetNsError::Gone { path }),
            Err(source) => return Err(NetNsError::Open { path, source }),
        };
        let magic = fstatfs(&file)
            .map_err(|errno| NetNsError::Open { path: path.clone(), source: errno.into() })?
            .filesystem_type();
        // Kernels before 3.19 had the namespaces in procfs.
        if [NSFS_MAGIC, PROC_SUPER_MAGIC].contains(&magic) {
            Ok(Self { path, file })
        } else {
            Err(NetNsError::NotANamespace { path })
        }
    }

    /// The calling thread's own namespace.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// A new, empty namespace that only this value holds: it is gone when this is dropped.
    pub fn create() -> Result<Self, NetNsError> {
        let path = PathBuf::from("/proc/thread-self/ns/net");
        let enter = |source| NetNsError::Enter { path: path.clone(), source };
        let create = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| enter(errno.into()))?;
            Self::current()
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("netns".to_owned());
            let thread = thread.spawn_scoped(scope, create).map_err(enter)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity.
    pub fn id(&self) -> Result<NetNsId, NetNsError> {
        let metadata =
            self.file.metadata().map_err(|source| NetNsError::Open { path: self.path.clone(), source })?;
        Ok(NetNsId { dev: metadata.dev(), inode: metadata.ino() })
    }

    /// Runs `f` in the namespace, on a thread of its own that ends with it: the caller's thread never changes
    /// its namespace, so nothing can be left in the wrong one. Sockets that `f` opens belong to the caller's runtime.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        let enter = |source| NetNsError::Enter { path: self.path.clone(), source };
        let runtime = Handle::try_current().ok();
        thread::scope(|scope| {
            thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, || {
                    let _entered = runtime.as_ref().map(Handle::enter);
                    setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                    Ok(f())
                })
                .map_err(enter)?
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                .map_err(|errno: nix::Error| enter(errno.into()))
        })
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
