//! Whether somebody on the link uses an address that a pod is to get, and whether its gateway is there: what is asked by
//! ARP (RFC 5227) and NDP (RFC 4861, RFC 4862), how often, and what the answers mean. Who sends and listens is
//! elsewhere.

pub mod arp;
pub mod ndp;
mod probing;
mod query;

pub use probing::{Probing, Timing, Turn};
pub use query::{Cast, Heard, Packet, Query};
