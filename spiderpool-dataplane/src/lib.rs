//! Userspace side of the eBPF programs: loads and pins them, and reads and writes their maps with types.
//!
//! The only crate that links aya. Programs are attached through spiderpool-net; what goes into the maps, the agent
//! decides. docs/dataplane.md explains every map.

mod addresses;
mod attach;
mod batch;
mod btf;
mod carry;
mod cidrs;
mod devices;
mod error;
mod flows;
mod flush;
mod halves;
mod layout;
mod load;
mod logs;
mod maps;
mod memlock;
mod nics;
mod pins;
mod programs;
mod raw;
mod stats;
mod sweep;
mod sys;
mod tables;
mod usage;

pub use attach::{AttachError, AttachedFilters, Repaired, detach, detach_id, repair};
pub use carry::Discarded;
pub use error::{LoadError, MapError, OpenError};
pub use load::{Dataplane, NicsOrigin, Replaced, Sizes};
pub use logs::Logs;
pub use pins::KeptPins;
pub use programs::{ProgramPair, Programs};
pub use spiderpool_ebpf_common::maps::{
    CidrAction, CidrKind, DEFAULT_BACKUP, DEFAULT_NONE, DEFAULT_USED, DeviceKind, EPHEMERAL_PORTS, ExitMode,
    NicEntry, PodUsage, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_NONE, ROLE_UNDERLAY,
};
pub use spiderpool_ebpf_common::reason::Reason;
pub use sweep::{Expired, FlowsExpired};
pub use sys::trim_heap;
pub use tables::TableUsage;

/// Where maps and programs are pinned on a node.
pub const PIN_DIR: &str = "/sys/fs/bpf/spiderpool/v1";
