//! The pinned programs, for whoever attaches them: two system calls, no loader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use spiderpool_ebpf_common::maps::names;
use spiderpool_net::tc::Direction;

use crate::error::OpenError;
use crate::sys;

/// Descriptors of the two programs.
#[derive(Debug)]
pub struct Programs {
    egress: OwnedFd,
    ingress: OwnedFd,
}

impl Programs {
    pub(crate) const fn new(egress: OwnedFd, ingress: OwnedFd) -> Self {
        Self { egress, ingress }
    }

    /// Opens the programs that the agent pinned in `pin_dir`.
    pub fn open(pin_dir: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            egress: open(&pin_dir.join(names::EGRESS))?,
            ingress: open(&pin_dir.join(names::INGRESS))?,
        })
    }

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

    /// The program for a NIC's egress.
    pub fn egress_fd(&self) -> BorrowedFd<'_> {
        self.egress.as_fd()
    }

    /// The program for a NIC's ingress.
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
