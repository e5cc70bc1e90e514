//! The test bench: what integration tests, the demo and the benchmarks are built from.
//!
//! Everything here is real: etcd and kube-apiserver as processes, nodes as namespaces, packets through the kernel.
//! What is started dies with the process that started it, also after `kill -9`.
#![forbid(unsafe_code)]

pub mod calico_like;
pub mod capture;
pub mod cni;
pub mod control_plane;
pub mod dual;
pub mod machine;
pub mod place;
pub mod pod;
pub mod poll;
pub mod probe;
pub mod process;
pub mod service;
pub mod state_dir;
pub mod tools;
pub mod topology;
