//! `spiderpool-agent`: allocates addresses for the pods of its node and owns the node's dataplane.
#![forbid(unsafe_code)]

pub mod agent;
mod announce;
mod atomic_file;
pub mod config;
pub mod coordinator;
pub mod daemon;
pub mod dataplane;
pub mod destinations;
pub mod fallback;
pub mod host_ends;
mod http;
pub mod ipam;
mod multus;
pub mod node;
pub mod node_addresses;
pub mod node_events;
mod node_lease;
pub mod pod_network;
mod processes;
pub mod reconciler;
pub mod start;
pub mod watches;
