//! What an installer leaves in the API: kubeadm's configuration.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::Node;
use super::api::ApiAccess;
use crate::kubectl::Kubectl as _;
use crate::poll;
use crate::topology::addresses;

const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn apply(api: &ApiAccess) -> Result<()> {
    // The API server makes kube-system a moment after it is ready.
    poll::until("the namespace kube-system", LIMIT, || api.apply(&kubeadm()).map(drop))
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
pub(super) fn assign_pod_cidrs(api: &ApiAccess, node: &Node) -> Result<()> {
    let cidrs = addresses::pod_cidrs(node.index);
    let patch = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}});
    api.with_client(async |client| {
        let nodes: Api<core::Node> = Api::all(client);
        nodes.patch(&node.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    })
}

/// Pods of the default namespace are refused before it is there.
pub(super) fn wait_for_service_account(api: &ApiAccess) -> Result<()> {
    poll::until("the default service account", LIMIT, || {
        api.with_client(async |client| {
            Api::<core::ServiceAccount>::default_namespaced(client).get("default").await?;
            Ok(())
        })
    })
}
