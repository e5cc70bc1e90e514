//! Typed rtnetlink requests.
//!
//! A method is one request and its answer. Whoever awaits it also drives the connection, so there is no background
//! task and the socket is closed when [`Netlink`] is dropped. Strict checking is on: a field that the kernel does not
//! know is an error, not ignored.
//!
//! What changes something goes through rtnetlink's builders. Raw messages are sent where there is none (clsact, eBPF
//! filters, appended routes) and for everything that is read: a builder's stream does not show the headers, and the
//! flag of an interrupted dump may be on any message of it.

pub(crate) mod addr;
mod bond;
pub(crate) mod connection;
mod error;
pub(crate) mod link;
pub(crate) mod neigh;
mod route;
mod rule;
pub(crate) mod socket;
mod vlan;

pub use connection::Netlink;
pub use error::NetlinkError;
pub use link::{LinkState, NewVeth};
