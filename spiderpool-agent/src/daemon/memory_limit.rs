//! The limit of locked memory.

use std::io;

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

/// Lifts it: for kernels that count eBPF maps and programs.
pub(super) fn lift() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?)
}
