//! Multus on a node that is cleaned.

use std::path::Path;

use spiderpool_core::names::NodeName;
use spiderpool_runtime::kubernetes::Kubernetes;
use tracing::{info, warn};

use crate::multus::{pods_made_until, remove_rest, withdraw, withdrawn_at};

/// Removes Multus' configuration, also while pods run: with a Multus that has no access to the API server no pod of the node
/// would start. The rest goes if no pod is left that Multus may have made. Answers what could not be removed.
pub(super) async fn clean(
    conf_dir: &Path,
    cni_bin: &Path,
    node: &NodeName,
    in_use: &[String],
) -> Vec<String> {
    match withdraw(conf_dir) {
        Ok(removed) => info!(removed, folder = %conf_dir.display(), "Multus' configuration"),
        Err(error) => return vec![format!("Multus' configuration in {}: {error}", conf_dir.display())],
    }
    let why = match in_use.first() {
        Some(why) => Some(why.clone()),
        None => users(conf_dir, node).await,
    };
    match why {
        Some(why) => {
            warn!(%node, why, bin = %cni_bin.display(), "Multus' program and kubeconfig are kept: the container runtime may need them to end pods");
            Vec::new()
        }
        None => remove_rest(conf_dir, cni_bin),
    }
}

/// Why program and kubeconfig may be needed.
async fn users(conf_dir: &Path, node: &NodeName) -> Option<String> {
    let kube = match Kubernetes::connect().await {
        Ok(kube) => kube,
        Err(error) => return Some(error.to_string()),
    };
    match pods_made_until(withdrawn_at(conf_dir), &kube, node).await {
        Ok(pods) => pods.first().map(|pod| format!("pod {pod} and {} others run", pods.len() - 1)),
        Err(failure) => Some(format!("pods of {node} cannot be listed: {failure}")),
    }
}
