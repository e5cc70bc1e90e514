//! What an installer leaves in the API: the NAD's definition, Multus' rights, kubeadm's configuration.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{Cluster, Node};
use crate::kubectl::Kubectl as _;
use crate::poll;
use crate::topology::addresses;

const LIMIT: Duration = Duration::from_secs(30);
const MULTUS: &str = include_str!("manifests/multus.yaml");

pub(super) fn apply(cluster: &Cluster) -> Result<()> {
    // The API server makes kube-system a moment after it is ready.
    let manifests = format!("{MULTUS}---\n{}", kubeadm());
    poll::until("the namespace kube-system", LIMIT, || cluster.apply(&manifests))?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/network-attachment-definitions.k8s.cni.cncf.io",
        "--timeout=30s",
    ])?;
    Ok(())
}

/// kubeadm writes block style, and there are readers that understand nothing else.
fn kubeadm() -> String {
    let (pods, services) = (addresses::OVERLAY.join(","), addresses::SERVICES.join(","));
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: kubeadm-config, namespace: kube-system}}
data:
  ClusterConfiguration: |
    apiVersion: kubeadm.k8s.io/v1beta4
    kind: ClusterConfiguration
    networking:
      dnsDomain: cluster.local
      podSubnet: {pods}
      serviceSubnet: {services}
"
    )
}

/// Writes a node's pod CIDRs, whose numbers are those of the node: the controller would give them in order of arrival.
pub(super) fn assign_pod_cidrs(cluster: &Cluster, node: &Node) -> Result<()> {
    let cidrs = addresses::pod_cidrs(node.index);
    let patch = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}}).to_string();
    cluster.kubectl(&["patch", "node", &node.name, "--type=merge", "-p", &patch])?;
    Ok(())
}

/// Pods of the default namespace are refused before it is there.
pub(super) fn wait_for_service_account(cluster: &Cluster) -> Result<()> {
    poll::until("the default service account", LIMIT, || {
        cluster.kubectl(&["get", "serviceaccount", "default"]).map(drop)
    })
}
