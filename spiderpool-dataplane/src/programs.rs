//! The pinned programs, for whoever attaches them: a system call each, no loader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use spiderpool_ebpf_common::maps::names;
use spiderpool_net::tc::Direction;

use crate::error::OpenError;
use crate::sys;

/// Descriptors of all programs.
#[derive(Debug)]
pub struct Programs {
    /// For the NICs of a pod, in its namespace.
    pub nic: ProgramPair,
    /// For the host end of its node link, in the node's.
    pub host_end: ProgramPair,
}

/// Descriptors of the programs for both directions of a link.
#[derive(Debug)]
pub struct ProgramPair {
    pub(crate) egress: OwnedFd,
    pub(crate) ingress: OwnedFd,
}

impl Programs {
    /// Opens the programs that the agent pinned in `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, OpenError> {
        let open = |egress, ingress| {
            Ok::<_, OpenError>(ProgramPair {
                egress: open(&pin_dir.join(egress))?,
                ingress: open(&pin_dir.join(ingress))?,
            })
        };
        Ok(Self {
            nic: open(names::EGRESS, names::INGRESS)?,
            host_end: open(names::HOST_EGRESS, names::HOST_INGRESS)?,
        })
    }

    /// Each with the name of its pin.
    pub(crate) fn by_name(&self) -> [(&'static str, BorrowedFd<'_>); 4] {
        [
            (names::HOST_EGRESS, self.host_end.egress.as_fd()),
            (names::HOST_INGRESS, self.host_end.ingress.as_fd()),
            (names::EGRESS, self.nic.egress.as_fd()),
            (names::INGRESS, self.nic.ingress.as_fd()),
        ]
    }
}

impl ProgramPair {
    /// The kernel's id of the program for a direction.
    pub(crate) fn id(&self, direction: Direction) -> io::Result<u32> {
        sys::prog_id(self.fd(direction))
    }

    pub(crate) fn fd(&self, direction: Direction) -> BorrowedFd<'_> {
        match direction {
            Direction::Ingress => self.ingress_fd(),
            Direction::Egress => self.egress_fd(),
        }
    }

    /// The program for the link's egress.
    pub fn egress_fd(&self) -> BorrowedFd<'_> {
        self.egress.as_fd()
    }

    /// The program for the link's ingress.
    pub fn ingress_fd(&self) -> BorrowedFd<'_> {
        self.ingress.as_fd()
    }
}

fn open(path: &Path) -> Result<OwnedFd, OpenError> {
    sys::obj_get(path).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => OpenError::NotPinned { path },
            io::ErrorKind::PermissionDenied => OpenError::NotPermitted { path },
            _ => OpenError::Io { path, source },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::Programs;
    use crate::OpenError;

    #[test]
    fn nothing_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let error = Programs::open(dir.path()).unwrap_err();
        assert!(matches!(error, OpenError::NotPinned { .. } | OpenError::NotPermitted { .. }), "{error}");
    }
}
