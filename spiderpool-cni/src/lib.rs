//! The CNI plugins `spiderpool`, `coordinator` and `ifacer`, one process per request.
//!
//! They live for milliseconds: no thread pool, no Kubernetes client, no eBPF loader. What is decided comes
//! from spiderpool-core, what is done to the kernel goes through spiderpool-net.
#![forbid(unsafe_code)]

pub mod base;
pub mod coordinator;
pub mod env;
pub mod error;
pub mod ifacer;
pub mod ipam;
pub mod log;
mod netns;
pub mod run;
pub mod spec;
