//! What tests put into machines and pods, and what those who start them need to know of it.
//!
//! One small static program, `testbox`, because it runs where nothing else is: as process 1 of a machine, as CNI
//! plugin, in an image that holds nothing but it.
#![forbid(unsafe_code)]

pub mod calico;
pub mod cgroup;
pub mod cilium;
pub mod cleanup;
pub mod control;
pub mod enter;
pub mod felix;
pub mod init;
pub mod install_cni;
pub mod machine;
pub mod ovs;
pub mod plugin;
pub mod probe;
pub mod sysctl;

mod command;
