//! What the agent follows on the API server.

mod namespaces;
mod own_node;
mod pods;
mod pool_specs;

pub use namespaces::{NamespaceIndex, NamespaceMeta, WatchedNamespace};
pub(crate) use own_node::OwnNode;
pub use own_node::OwnNodeIndex;
pub use pods::LocalPodIndex;
pub use pool_specs::{PoolSpecs, Unreadable};
pub use spiderpool_api::pod::Pod;
pub use spiderpool_runtime::coordinators::CoordinatorIndex;
pub use spiderpool_runtime::pools::PoolIndex;
pub use spiderpool_runtime::reserved::ReservedIndex;
pub use spiderpool_runtime::watch::{Index, Shared, follow};
