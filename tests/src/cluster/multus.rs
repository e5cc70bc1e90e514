//! Multus as thin plugin: what its DaemonSet installs on a node.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

/// Who Multus is for the API server.
pub(super) const USER: &str = "system:multus";

/// Writes its configuration, which comes before every other, and its file. To be run on the node.
///
/// The default network is written into it, as Multus' own installer does: of one that it reads from a file it forgets
/// before DEL what it does not know itself, such as host-local's ranges.
pub(super) fn install(program: &Path, kubeconfig: &Path, default_network: &Value) -> Result<()> {
    fs::copy(program, "/opt/cni/bin/multus")?;
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "multus-cni-network",
        "type": "multus",
        "capabilities": {"portMappings": true},
        "kubeconfig": kubeconfig,
        "delegates": [default_network],
        "namespaceIsolation": false,
        "logLevel": "verbose",
        "logFile": "/var/log/multus.log",
    });
    Ok(fs::write("/etc/cni/net.d/00-multus.conf", serde_json::to_vec_pretty(&config)?)?)
}
