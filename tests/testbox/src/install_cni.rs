//! `testbox install-cni`: what the init container of Calico's DaemonSet does on a node: writes the configuration of
//! ConfigMap `calico-config`, with the node's values filled in.

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::calico;

/// Where the container sees the node's folder.
const FOLDER: &str = "/host/etc/cni/net.d";

/// Takes the environment that Calico's manifest sets.
pub fn run() -> Result<()> {
    let variable = |name: &str| env::var(name).with_context(|| format!("{name} is not set"));
    let filled_in = fill_in(&variable("CNI_NETWORK_CONFIG")?, &variable("KUBERNETES_NODE_NAME")?);
    let config: Value = serde_json::from_str(&filled_in).context("CNI_NETWORK_CONFIG is not JSON")?;
    let path = Path::new(FOLDER).join(variable("CNI_CONF_NAME")?);
    let fresh = path.with_extension("new");
    fs::write(&fresh, serde_json::to_vec_pretty(&config)?)?;
    Ok(fs::rename(fresh, path)?)
}

fn fill_in(text: &str, node: &str) -> String {
    text.replace("__KUBERNETES_NODE_NAME__", node)
        .replace("__CNI_MTU__", &calico::MTU.to_string())
        .replace("__KUBECONFIG_FILEPATH__", "/etc/cni/net.d/calico-kubeconfig")
}
