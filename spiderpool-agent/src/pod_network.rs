//! The network of this node's pods: which NICs they have registered, and what the agent keeps right in their
//! network namespaces while the cluster and the node change: the node link and the route hints.
//!
//! Knows nothing of programs and maps.

mod idle_links;
mod inventory;
pub(crate) mod netns;
pub(crate) mod node_link;
mod profile_key;
pub(crate) mod route_hints;
pub(crate) mod state_file;

use std::path::{Path, PathBuf};

pub(crate) use idle_links::IdleLinks;
pub use inventory::InventoryError;
#[cfg(test)]
pub(crate) use inventory::NetnsIdentity;
pub(crate) use inventory::{Inventory, NicRecord, PodRecord, Retired};
pub use netns::NamespaceError;
pub use profile_key::ProfileKey;
pub use state_file::StateFileError;

/// Where the inventory is kept.
pub fn state_path(folder: &Path) -> PathBuf {
    folder.join("dataplane.json")
}
