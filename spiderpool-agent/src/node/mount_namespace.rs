//! The node's mount namespace, which a container sees a part of.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};
use thiserror::Error;

/// The namespace cannot be entered.
#[derive(Debug, Error)]
#[error("the node's mount namespace {}: {operation}: {source}", path.display())]
pub struct MountNamespaceError {
    path: PathBuf,
    operation: &'static str,
    source: io::Error,
}

/// The root directory of the process whose mount namespace this is, by which its files can be looked at without entering; `None`
/// where the path does not name a process.
pub(crate) fn root(namespace: &Path) -> Option<PathBuf> {
    let process = namespace.to_str()?.strip_suffix("/ns/mnt")?;
    process.starts_with("/proc/").then(|| Path::new(process).join("root"))
}

/// Runs `task` in the mount namespace that the file `namespace` names, on a thread of its own.
pub(crate) fn run_in<T: Send>(
    namespace: &Path,
    task: impl FnOnce() -> T + Send,
) -> Result<T, MountNamespaceError> {
    let failed = |operation| {
        move |source: io::Error| MountNamespaceError { path: namespace.to_owned(), operation, source }
    };
    let file = File::open(namespace).map_err(failed("open"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // A thread that shares its folders with others cannot enter.
            unshare(CloneFlags::CLONE_FS)
                .and_then(|()| setns(&file, CloneFlags::CLONE_NEWNS))
                .map_err(|errno| failed("enter")(errno.into()))?;
            Ok(task())
        });
        thread.join().unwrap_or_else(|_| Err(failed("thread")(io::Error::other("panic"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_root_and_a_file_elsewhere_has_none() {
        assert_eq!(root(Path::new("/proc/1/ns/mnt")).unwrap(), Path::new("/proc/1/root"));
        assert_eq!(root(Path::new("/run/mounts/ns/mnt")), None);
        assert_eq!(root(Path::new("/proc/1/ns/net")), None);
    }
}
