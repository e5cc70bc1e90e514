//! DaemonSets and their pods: the agents' is deleted, the cleaners' is applied and deleted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use tracing::{info, warn};

use super::plan::{DaemonPod, still_there};
use super::{Cleaner, gone_is_fine};

/// Pause between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);

impl Cleaner {
    pub(super) fn daemon_sets(&self) -> Api<DaemonSet> {
        Api::namespaced(self.kube.client(), &self.namespace)
    }

    /// Deletes the agents and waits until they are gone.
    pub(super) async fn remove_agents(&self, name: &str) -> anyhow::Result<()> {
        if self.remove_daemon_set(name).await? {
            info!(name, "the agents are gone");
        }
        Ok(())
    }

    /// Whether there was one.
    pub(super) async fn remove_daemon_set(&self, name: &str) -> anyhow::Result<bool> {
        let sets = self.daemon_sets();
        let Some(set) = self.kube.read(sets.get_opt(name)).await? else { return Ok(false) };
        let uid = set.metadata.uid.context("a DaemonSet without UID")?;
        gone_is_fine(self.kube.write(sets.delete(name, &DeleteParams::background())).await)?;
        let end = Instant::now() + self.limit;
        loop {
            let dead = self.dead_nodes().await?;
            let there = still_there(&self.pods_of(&uid).await?, &dead);
            if there.is_empty() {
                if !dead.is_empty() {
                    warn!(nodes = ?dead, "these nodes do not answer, what runs there is left");
                }
                return Ok(true);
            }
            ensure!(
                Instant::now() < end,
                "pods of DaemonSet {name} are still on {} after {:?}: delete them, then uninstall again",
                there.join(", "),
                self.limit
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn pods_of(&self, uid: &str) -> anyhow::Result<Vec<DaemonPod>> {
        let pods = Api::<Pod>::namespaced(self.kube.client(), &self.namespace);
        let list = self.kube.read(pods.list(&ListParams::default())).await?;
        let of_set = list
            .items
            .into_iter()
            .filter(|pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid));
        let daemon = of_set.map(|pod| {
            let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
            DaemonPod {
                node: pod.spec.and_then(|spec| spec.node_name).unwrap_or_default(),
                is_ready: conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
            }
        });
        Ok(daemon.collect())
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
