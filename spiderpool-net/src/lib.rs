//! The only code that talks to the kernel's network: netlink, namespaces, sysctls, raw sockets.
//!
//! netlink is async, by rtnetlink; [`block_on`] is for threads without a runtime. The rest blocks and answers within
//! microseconds. No thread's namespace ever changes across an await: a socket is opened inside a namespace, by a
//! thread that ends, and used from anywhere. Nothing here decides: callers apply plans that spiderpool-core made.

pub mod announce;
pub mod events;
pub mod executor;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod probe;
pub mod snapshot;
pub mod sysctl;
pub mod tc;

use netlink::NetlinkError;

/// Runs what uses netlink to its end on this thread, which must not belong to a runtime.
pub fn block_on<T, E: From<NetlinkError>>(future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.map_err(NetlinkError::socket("start a runtime"))?.block_on(future)
}
