//! A lock of a network namespace, for programs that change its interfaces one after the other.

use std::fs::File;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{NetNs, NetNsError};

/// How long to wait between two attempts: short beside what making an interface takes.
const INTERVAL: Duration = Duration::from_millis(10);

/// Held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct NetNsLock {
    _file: Flock<File>,
}

impl NetNs {
    /// Waits for the lock, on this thread; `None` if others have it for longer than `limit`.
    ///
    /// It is an advisory lock on the namespace's own file (flock(2) on nsfs): it has no path that would have to be agreed
    /// upon or removed. Whoever is in the namespace can take it, root or not, so that nothing may wait for it for ever.
    pub fn lock(&self, limit: Duration) -> Result<Option<NetNsLock>, NetNsError> {
        let failed = |source: io::Error| NetNsError::Open { path: self.path.clone(), source };
        let until = Instant::now() + limit;
        loop {
            let file = self.file.try_clone().map_err(failed)?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => return Ok(Some(NetNsLock { _file: file })),
                Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < until => {
                    thread::sleep(INTERVAL);
                }
                Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => return Ok(None),
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
    }
}
