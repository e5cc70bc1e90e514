//! `spiderpool-agent`: allocates addresses for the pods of its node and owns the node's dataplane.
#![forbid(unsafe_code)]

mod announce;
pub mod cluster_cidrs;
pub mod config;
pub mod coordinator;
pub mod daemon;
pub mod dataplane;
mod http;
pub mod ipam;
pub mod node;
pub mod node_addresses;
pub mod pod_network;
pub mod start;
pub mod watches;
