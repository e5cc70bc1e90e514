//! Address management: one SpiderIPAddress per address, created by ADD, deleted by DEL.
//!
//! An ADD passes four stages ([`allocate`]): the [`request`] is parsed, its pools are resolved to a plan ([`resolve`]),
//! what the pod lacks is taken ([`allocator`]), and the plugin gets its answer ([`respond`]). What others use of it on the link
//! is exchanged when the plugin asks again ([`conflicts`]). Addresses are freed by DEL
//! ([`release`]) and, where none came, by the runtime's [`gc`] and the [`sweep`]. What is decided is in `spiderpool_core::ipam`.
//!
//! **Invariant:** a request that may have taken an address is never forgotten: it is finished although the caller has
//! gone, and one whose outcome is unknown is read before the pod gets another address.

mod adds_in_progress;
mod allocate;
mod allocator;
mod auto_pools;
mod conflicts;
mod delete;
mod endpoint_queue;
mod error;
mod gc;
mod keyed_mutex;
mod metrics;
mod pod_events;
mod pods;
mod predecessors;
mod reassert;
mod reassertion;
mod release;
mod request;
mod resolve;
mod respond;
mod service;
mod successors;
mod surroundings;
mod sweep;
mod workloads;

pub(crate) use allocator::state_path;
pub use endpoint_queue::EndpointQueue;
pub use error::{AllocateError, PodError, ReleaseError};
pub use metrics::IpamMetrics;
pub use respond::Detection;
pub use service::{Indexes, Ipam, IpamSettings};
