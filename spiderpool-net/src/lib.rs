//! The only code that talks to the kernel's network: netlink, namespaces, sysctls, raw sockets.
//!
//! Everything here blocks and answers within microseconds; an async caller uses a blocking thread. Nothing
//! here decides: callers apply plans that spiderpool-core made.

pub mod announce;
pub mod events;
pub mod netlink;
pub mod netns;
pub mod sysctl;
pub mod tc;
