//! Nodes and pods as API objects: nothing runs on them.

use std::ops::Range;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use spiderpool_core::ipam::annotation_key;
use spiderpool_core::names::PodName;

use crate::agents::node;

const NAMESPACE: &str = "default";
/// Requests in flight.
const CONCURRENT: usize = 64;

/// A pod that wants an address.
#[derive(Debug, Clone)]
pub(crate) struct PodRequest {
    /// The index of its node.
    pub(crate) node: usize,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl PodRequest {
    pub(crate) fn pod(&self) -> Result<PodName> {
        Ok(PodName::new(NAMESPACE, self.name.as_str())?)
    }
}

/// On which of these nodes each of so many pods is, in the nodes' order and as evenly as possible.
pub(crate) fn spread(pods: usize, nodes: Range<usize>) -> impl Iterator<Item = usize> {
    (0..pods).map(move |index| nodes.start + index * nodes.len() / pods)
}

/// Ready nodes: an agent keeps a Lease while its node is not.
pub(crate) async fn create_nodes(client: &Client, indexes: Range<usize>) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let created = stream::iter(indexes).map(Ok).try_for_each_concurrent(CONCURRENT, |index| {
        let nodes = nodes.clone();
        async move {
            let object = serde_json::from_value(json!({
                "metadata": {"name": node(index)},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }))?;
            match nodes.create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => drop(other?),
            }
            Ok::<_, anyhow::Error>(())
        }
    });
    created.await
}

/// A pod on each of these nodes; in their order.
pub(crate) async fn create_pods(
    client: &Client,
    prefix: &str,
    nodes: impl Iterator<Item = usize>,
) -> Result<Vec<PodRequest>> {
    let created =
        stream::iter(nodes.enumerate()).map(|(index, node)| create_pod(client, prefix, index, node));
    created.buffered(CONCURRENT).try_collect().await
}

pub(crate) async fn create_pod(
    client: &Client,
    prefix: &str,
    index: usize,
    node_index: usize,
) -> Result<PodRequest> {
    let object = serde_json::from_value(json!({
        // As a real pod says which NIC it wants: upstream's agent refuses one that has no annotation of Multus.
        "metadata": {
            "name": format!("{prefix}-{index}"),
            "annotations": {annotation_key::MULTUS_NETWORKS: "kube-system/bench"},
        },
        "spec": {
            "nodeName": node(node_index), "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": "none"}],
        },
    }))?;
    let pod = pods(client).create(&PostParams::default(), &object).await?;
    let uid = pod.uid().context("the API server gave no UID")?;
    Ok(PodRequest { node: node_index, name: pod.name_any(), uid })
}

/// As a kubelet says that a pod runs, in one write where it takes a few.
pub(crate) async fn set_running(client: &Client, pod: &PodRequest) -> Result<()> {
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods(client).patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

/// Deletes the object: its containers have ended.
pub(crate) async fn delete_pod(client: &Client, pod: &PodRequest) -> Result<()> {
    pods(client).delete(&pod.name, &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}

fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_spread_in_the_order_of_the_nodes() {
        assert_eq!(spread(7, 3..6).collect::<Vec<_>>(), [3, 3, 3, 4, 4, 5, 5]);
        assert_eq!(spread(2, 3..6).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(spread(0, 3..6).count(), 0);
    }
}
