//! Deletes workloads and waits until their pods are gone, also pods that an earlier attempt left without owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use kube::core::PartialObjectMeta;
use tracing::{info, warn};

use super::plan::{DaemonPod, remaining_nodes};
use super::{Cleaner, ignore_not_found};

/// Interval of polls.
pub(super) const POLL: Duration = Duration::from_millis(250);

/// The label of the chart's pods that has their workload's name.
const COMPONENT: &str = "app.kubernetes.io/component";

impl Cleaner {
    pub(super) fn daemon_sets(&self) -> Api<DaemonSet> {
        Api::namespaced(self.kube.client(), &self.namespace)
    }

    /// Deletes the controllers and waits until they are gone. They are first: a leader would write again what is deleted
    /// here.
    pub(super) async fn remove_controller(&self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let deployments = Api::<Deployment>::namespaced(self.kube.client(), &self.namespace);
        // In the foreground, so that no ReplicaSet makes another pod after the last poll.
        ignore_not_found(self.kube.write(deployments.delete(name, &DeleteParams::foreground())).await)?;
        self.wait_gone(name).await?;
        // In the foreground, a pod on a node that is not ready would keep the Deployment.
        ignore_not_found(self.kube.write(deployments.delete(name, &DeleteParams::background())).await)?;
        Ok(())
    }

    /// Deletes a DaemonSet and waits until its pods are gone.
    pub(super) async fn remove_daemon_set(&self, name: &str) -> anyhow::Result<()> {
        // In the foreground too: while the DaemonSet is being deleted, its controller makes no pod.
        ignore_not_found(
            self.kube.write(self.daemon_sets().delete(name, &DeleteParams::foreground())).await,
        )?;
        self.wait_gone(name).await?;
        ignore_not_found(
            self.kube.write(self.daemon_sets().delete(name, &DeleteParams::background())).await,
        )?;
        Ok(())
    }

    async fn wait_gone(&self, name: &str) -> anyhow::Result<()> {
        let end = Instant::now() + self.limit;
        let selector = ListParams::default().labels(&format!("{COMPONENT}={name}"));
        loop {
            let unready = self.unready_nodes().await?;
            let pods = self.pods(&selector, |_| true).await?;
            let nodes = remaining_nodes(&pods, &unready);
            if nodes.is_empty() {
                let left: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
                if left.is_empty() {
                    info!(name, "its pods are gone");
                } else {
                    warn!(name, nodes = ?left, "its pods are gone, except on these nodes, which are not ready");
                }
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "pods of {name} are still on {} after {:?}: delete them, then uninstall again",
                nodes.join(", "),
                self.limit
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// The pods of a DaemonSet, as it is now.
    pub(super) async fn pods_of(&self, uid: &str) -> anyhow::Result<Vec<DaemonPod>> {
        let is_its = |pod: &Pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid);
        self.pods(&ListParams::default(), is_its).await
    }

    async fn pods(
        &self,
        selector: &ListParams,
        matches: impl Fn(&Pod) -> bool,
    ) -> anyhow::Result<Vec<DaemonPod>> {
        let pods = Api::<Pod>::namespaced(self.kube.client(), &self.namespace);
        let list = self.kube.read(pods.list(selector)).await?;
        let found = list.items.into_iter().filter(matches).map(|pod| {
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            DaemonPod {
                node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
                is_ready: conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
            }
        });
        Ok(found.collect())
    }

    /// Nodes that can have an agent.
    pub(super) async fn linux_nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = Api::<Node>::all(self.kube.client());
        let list = self.kube.read(nodes.list_metadata(&ListParams::default())).await?;
        let can =
            |node: &PartialObjectMeta<Node>| node.metadata.labels.as_ref().is_none_or(can_have_an_agent);
        let linux = list.items.into_iter().filter(can);
        Ok(linux.filter_map(|node| node.metadata.name).collect())
    }

    /// Nodes that are not ready.
    pub(super) async fn unready_nodes(&self) -> anyhow::Result<BTreeSet<String>> {
        let nodes = Api::<Node>::all(self.kube.client());
        let list = self.kube.read(nodes.list(&ListParams::default())).await?;
        let unready = list.items.into_iter().filter(|node| {
            let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
            !conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
        });
        Ok(unready.filter_map(|node| node.metadata.name).collect())
    }
}

/// By a node's labels. Virtual Kubelets run no DaemonSets.
fn can_have_an_agent(labels: &BTreeMap<String, String>) -> bool {
    let is = |key: &str, value: &str| labels.get(key).map(|found| found == value);
    is("kubernetes.io/os", "linux").unwrap_or(true) && !is("type", "virtual-kubelet").unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_virtual_nodes_have_no_agent() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let linux = ("kubernetes.io/os", "linux");
        assert!(can_have_an_agent(&labels(&[])) && can_have_an_agent(&labels(&[linux])));
        assert!(!can_have_an_agent(&labels(&[("kubernetes.io/os", "windows")])));
        assert!(!can_have_an_agent(&labels(&[linux, ("type", "virtual-kubelet")])));
    }
}
