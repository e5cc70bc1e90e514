//! Deletes what runs pods, and waits until the pods are gone: also those that an earlier try left, whose owner is gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::ensure;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use tracing::{info, warn};

use super::plan::{DaemonPod, still_there};
use super::{Cleaner, gone_is_fine};

/// Pause between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// The label by which the chart tells the pods of its workloads apart: it has the workload's name.
const COMPONENT: &str = "app.kubernetes.io/component";

impl Cleaner {
    pub(super) fn daemon_sets(&self) -> Api<DaemonSet> {
        Api::namespaced(self.kube.client(), &self.namespace)
    }

    /// Deletes the controllers and waits until they are gone. They go first: one of them would take its Lease again
    /// and write what is deleted here.
    pub(super) async fn remove_controller(&self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let deployments = Api::<Deployment>::namespaced(self.kube.client(), &self.namespace);
        // In the foreground, so that no ReplicaSet makes another pod after the last look.
        gone_is_fine(self.kube.write(deployments.delete(name, &DeleteParams::foreground())).await)?;
        self.wait_gone(name).await?;
        // A pod on a dead node would keep it for ever.
        gone_is_fine(self.kube.write(deployments.delete(name, &DeleteParams::background())).await)?;
        Ok(())
    }

    /// Deletes a DaemonSet and waits until its pods are gone.
    pub(super) async fn remove_daemon_set(&self, name: &str) -> anyhow::Result<()> {
        // As above: until it goes, the DaemonSet is marked as being deleted, and its controller makes no pod.
        gone_is_fine(self.kube.write(self.daemon_sets().delete(name, &DeleteParams::foreground())).await)?;
        self.wait_gone(name).await?;
        gone_is_fine(self.kube.write(self.daemon_sets().delete(name, &DeleteParams::background())).await)?;
        Ok(())
    }

    async fn wait_gone(&self, name: &str) -> anyhow::Result<()> {
        let end = Instant::now() + self.limit;
        let selector = ListParams::default().labels(&format!("{COMPONENT}={name}"));
        loop {
            let dead = self.dead_nodes().await?;
            let pods = self.pods(&selector, |_| true).await?;
            let there = still_there(&pods, &dead);
            if there.is_empty() {
                let left: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
                if left.is_empty() {
                    info!(name, "its pods are gone");
                } else {
                    warn!(name, nodes = ?left, "its pods are gone but on these nodes, which do not answer");
                }
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "pods of {name} are still on {} after {:?}: delete them, then uninstall again",
                there.join(", "),
                self.limit
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The pods of a DaemonSet, as it is now.
    pub(super) async fn pods_of(&self, uid: &str) -> anyhow::Result<Vec<DaemonPod>> {
        let is_its = |pod: &Pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid);
        self.pods(&ListParams::default(), is_its).await
    }

    async fn pods(
        &self,
        wanted: &ListParams,
        matches: impl Fn(&Pod) -> bool,
    ) -> anyhow::Result<Vec<DaemonPod>> {
        let pods = Api::<Pod>::namespaced(self.kube.client(), &self.namespace);
        let list = self.kube.read(pods.list(wanted)).await?;
        let found = list.items.into_iter().filter(matches).map(|pod| {
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            DaemonPod {
                node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
                is_ready: conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
            }
        });
        Ok(found.collect())
    }

    /// Nodes that do not answer.
    pub(super) async fn dead_nodes(&self) -> anyhow::Result<BTreeSet<String>> {
        let nodes = Api::<Node>::all(self.kube.client());
        let list = self.kube.read(nodes.list(&ListParams::default())).await?;
        let dead = list.items.into_iter().filter(|node| {
            let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
            !conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
        });
        Ok(dead.filter_map(|node| node.metadata.name).collect())
    }
}
