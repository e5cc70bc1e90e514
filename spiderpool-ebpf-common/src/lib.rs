//! What the eBPF programs and their userspace share: the maps' keys and values, and the programs' logic.
//!
//! The logic is plain functions over two traits, [`packet::Packet`] and [`state::State`]. The programs
//! implement them by kernel helpers and maps, the [`model`] by bytes and hash tables, so that the same
//! code runs under `cargo test` and in the kernel. Nothing here does I/O or knows aya's programs.
#![cfg_attr(not(any(test, feature = "model", feature = "user")), no_std)]

pub mod addr;
mod arrivals;
mod egress;
mod errors;
pub mod flow_state;
mod fragments;
pub mod headers;
mod ingress;
pub mod maps;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod mtu;
pub mod nat;
mod neighbor;
mod node_link;
pub mod packet;
mod pod;
mod pod_end;
pub mod protocol;
pub mod reason;
mod replies;
pub mod rewrite;
pub mod scratch;
pub mod state;
pub mod verdict;

#[cfg(test)]
mod tests;

pub use egress::egress;
pub use ingress::ingress;
pub use node_link::{host_egress, host_ingress};
