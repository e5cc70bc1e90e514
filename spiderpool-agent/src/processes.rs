//! The node's processes: the agent runs in the node's PID namespace.

mod cgroup;
mod running_pods;

use std::path::PathBuf;
use std::{fs, io};

pub(crate) use running_pods::running_pods;

/// The folder in /proc of each process that can be seen.
pub(crate) fn folders() -> io::Result<impl Iterator<Item = PathBuf>> {
    let entries = fs::read_dir("/proc")?.flatten();
    let processes =
        entries.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    Ok(processes.map(|entry| entry.path()))
}
