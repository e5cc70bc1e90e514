//! Where things are.

use std::path::{Path, PathBuf};

use spiderpool_core::names::NodeName;

/// Where things are on this node.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The node's name.
    pub(crate) node: NodeName,
    /// Where the node's own folders are mounted.
    pub(crate) host: PathBuf,
    /// The node's folder for plugins, as the node names it.
    pub(crate) cni_bin: Option<PathBuf>,
    /// The agent's namespace, which is that of the service account.
    pub(crate) namespace: String,
    /// The network of every pod's first NIC, `NAMESPACE/NAME`, or empty.
    pub(crate) cluster_network: String,
}

impl Place {
    /// A path that the node names, as this container sees it.
    pub(super) fn on_host(&self, path: &Path) -> PathBuf {
        self.host.join(path.strip_prefix("/").unwrap_or(path))
    }
}
