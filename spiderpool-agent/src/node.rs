//! What is done to the node itself, before the daemon comes and after it has gone: short-lived commands of the same
//! binary, so that the daemon needs neither their rights nor all of their mounts. While it runs it only puts missing
//! plugins back.

pub mod bpffs;
pub mod clean;
mod host_path;
pub mod install;
pub(crate) mod installed;
pub mod missing_plugins;
pub(crate) mod mount_namespace;
pub mod plugins;
pub mod prepare;
mod sysctls;
pub mod wait;

pub(crate) use host_path::HostFolder;
