//! What can go wrong, in words for the one who reads the agent's log or a CNI error.

use std::io;
use std::path::PathBuf;

use spiderpool_ebpf_common::maps::names;

/// Loading and pinning failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object with the programs cannot be read.
    #[error("cannot read the eBPF object {path}: {source}; SPIDERPOOL_BPF_OBJECT of the agent names it")]
    Object {
        /// The object.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object is not what this version expects.
    #[error("the eBPF object {path} has no {what}; it was built from another version")]
    Incomplete {
        /// The object.
        path: PathBuf,
        /// Map or program.
        what: &'static str,
    },
    /// The pin directory is not on a BPF file system.
    #[error("{path} is not on a BPF file system; mount one: mount -t bpf bpf /sys/fs/bpf")]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// The kernel refused for lack of rights.
    #[error(
        "not permitted to {what}: the agent needs the capabilities BPF, NET_ADMIN and PERFMON (or SYS_ADMIN)"
    )]
    NotPermitted {
        /// What was tried.
        what: &'static str,
    },
    /// The kernel counts maps and programs as locked memory, and the limit does not allow them.
    #[error(
        "not permitted to {what}: Linux {release} counts eBPF maps as locked memory, and the agent's limit is {limit} bytes: set spiderpoolAgent.raiseMemlock=true in the chart's values, or use Linux 5.11 or later"
    )]
    LockedMemory {
        /// What was tried.
        what: &'static str,
        /// The kernel's release.
        release: String,
        /// The limit.
        limit: u64,
    },
    /// The verifier refused a program.
    #[error("the kernel refused the program {program}: {source}; end of the verifier's log:\n{log}")]
    Verifier {
        /// Program name.
        program: &'static str,
        /// What the system call returned.
        source: io::Error,
        /// Last lines of the log.
        log: String,
    },
    /// The pin directory cannot be made or written.
    #[error("cannot pin {path}: {source}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Parsing, relocation, map creation.
    #[error("cannot load the eBPF object {path}: {source}")]
    Aya {
        /// The object.
        path: PathBuf,
        /// Why.
        source: Box<aya::EbpfError>,
    },
    /// A program could not be handled.
    #[error("cannot load the program {program}: {source}")]
    Program {
        /// Program name.
        program: &'static str,
        /// Why.
        source: Box<aya::programs::ProgramError>,
    },
    /// A map could not be opened.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// A map could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Id 0, or beyond the array.
    #[error("NIC id {id} is not between 1 and {max}; give the agent a larger SPIDERPOOL_BPF_NICS")]
    NicId {
        /// The id.
        id: u16,
        /// The largest that fits.
        max: u32,
    },
    /// No room for another entry.
    #[error("map {map} is full; give the agent a larger {}", setting(map))]
    Full {
        /// Map name.
        map: &'static str,
    },
    /// The system call failed.
    #[error("map {map}: {source}")]
    Map {
        /// Map name.
        map: &'static str,
        /// Why.
        source: Box<aya::maps::MapError>,
    },
    /// The map was not in the object or not among the pins.
    #[error("map {map} does not exist")]
    Missing {
        /// Map name.
        map: &'static str,
    },
    /// The clock or the number of CPUs could not be read.
    #[error("cannot read the clock or the number of CPUs: {0}")]
    System(io::Error),
}

/// The pinned programs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is pinned there.
    #[error(
        "no program is pinned at {path}: spiderpool-agent has not loaded the dataplane on this node, or its BPF file system is not mounted here"
    )]
    NotPinned {
        /// The pin.
        path: PathBuf,
    },
    /// The kernel refused for lack of rights.
    #[error("not permitted to open {path}: the capability BPF (or SYS_ADMIN) is needed")]
    NotPermitted {
        /// The pin.
        path: PathBuf,
    },
    /// Something else.
    #[error("cannot open {path}: {source}")]
    Io {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LoadError {
    /// Short name for metrics and events.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Object { .. } => "object_missing",
            Self::Incomplete { .. } => "object_incomplete",
            Self::NotBpffs { .. } => "no_bpffs",
            Self::NotPermitted { .. } => "not_permitted",
            Self::LockedMemory { .. } => "memlock",
            Self::Verifier { .. } => "verifier",
            Self::Pin { .. } => "pin",
            Self::Aya { .. } | Self::Program { .. } => "load",
            Self::Map(_) => "map",
        }
    }
}

impl MapError {
    /// Names the map of an error of aya; a full map becomes [`Self::Full`].
    pub(crate) fn of(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Self {
        move |source| {
            let full = matches!(&source, aya::maps::MapError::SyscallError(e)
                if matches!(e.io_error.raw_os_error(), Some(nix::libc::E2BIG | nix::libc::ENOSPC)));
            if full { Self::Full { map } } else { Self::Map { map, source: Box::new(source) } }
        }
    }
}

/// Another CPU or the program may have removed the entry first.
pub(crate) fn ignore_missing(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

/// What the map's size is called in the agent's environment.
fn setting(map: &str) -> &'static str {
    match map {
        names::CLUSTER_CIDRS => "SPIDERPOOL_BPF_CIDRS",
        names::ARRIVALS => "SPIDERPOOL_BPF_ARRIVALS",
        names::NAT => "SPIDERPOOL_BPF_NAT",
        names::LINK_FLOWS => "SPIDERPOOL_BPF_LINK_FLOWS",
        _ => "SPIDERPOOL_BPF_NICS",
    }
}
