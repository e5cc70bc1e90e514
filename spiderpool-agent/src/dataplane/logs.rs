//! What the programs log, handed on.

use std::os::fd::AsFd;
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use spiderpool_dataplane::Dataplane;
use tracing::error;

/// Follows the programs' log on a thread of its own, which ends with the ring buffer.
pub(super) fn follow(maps: &mut Dataplane) {
    let Some(mut logs) = maps.take_logs() else { return };
    let follow = move || {
        loop {
            let mut ready = [PollFd::new(logs.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => logs.flush(),
                Err(error) => return error!(%error, "log of the programs cannot be read"),
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("bpf-log".to_owned()).spawn(follow) {
        error!(%error, "log of the programs is not followed");
    }
}
