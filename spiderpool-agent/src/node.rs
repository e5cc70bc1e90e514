//! What is done to the node itself, before the daemon comes and after it has gone. Short-lived commands of the same
//! binary, so that the daemon needs neither their rights nor their mounts.

pub mod bpffs;
pub mod clean;
pub mod plugins;
pub mod prepare;
mod sysctls;
pub mod wait;
