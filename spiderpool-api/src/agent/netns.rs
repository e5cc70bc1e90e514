//! How a plugin names a pod's network namespace to the agent.

use serde::{Deserialize, Serialize};

/// Identifies a network namespace among those that exist: a path may be used again for a later one, and may lead to
/// another one, or nowhere, in the agent's mount and PID namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsIdentity {
    /// Device of the nsfs file.
    pub dev: u64,
    /// Its inode.
    pub inode: u64,
}

/// A network namespace as the plugin that asks has it open. Runtimes keep namespaces where the agent's pod has no
/// mount: Docker names them `/proc/PID/ns/net`, containerd can keep them below its state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenNetns {
    /// Which one it is.
    #[serde(flatten)]
    pub identity: NetnsIdentity,
    /// `/proc/PID/fd/N` of the plugin, in the node's PID namespace. It ends with the plugin.
    pub descriptor: String,
}
