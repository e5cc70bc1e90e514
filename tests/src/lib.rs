//! The test bench: what integration tests, the demo and the benchmarks are built from.
//!
//! Everything here is real: etcd and kube-apiserver as processes, nodes as namespaces, packets through the kernel.
//! What is started dies with the process that started it, also after `kill -9`.
#![forbid(unsafe_code)]

pub mod control_plane;
pub mod poll;
pub mod process;
pub mod state_dir;
pub mod tools;
