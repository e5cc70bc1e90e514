//! Typed rtnetlink requests over one blocking socket.
//!
//! A method is one request and its answer. The kernel answers a request before `send` returns, so nothing
//! waits. Strict checking is on: a field that the kernel does not know is an error, not ignored.

pub(crate) mod addr;
pub(crate) mod link;
mod neigh;
mod route;
mod socket;

pub use link::NewVeth;
pub use socket::{Netlink, NetlinkError};
