//! Cleans the nodes, by a DaemonSet.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::plan::{Progress, uncleaned, unfinished};
use super::workloads::POLL;
use super::{Cleaner, OwnPod};

impl Cleaner {
    /// Applies the manifest, waits until its pods are ready, and deletes it. `own` owns it, so that the garbage collector
    /// deletes it if this pod is killed: otherwise it would clean the nodes of the next installation. Answers the nodes that
    /// are as they were.
    pub(super) async fn clean_nodes(
        &self,
        manifest: Option<&Path>,
        own: Option<OwnPod<'_>>,
    ) -> anyhow::Result<Vec<String>> {
        let Some(path) = manifest else {
            warn!("SPIDERPOOL_CLEAN_NODE_MANIFEST is not set, the nodes are not cleaned");
            return Ok(uncleaned(&self.linux_nodes().await?, &[]));
        };
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut manifest: Value =
            serde_norway::from_str(&text).with_context(|| format!("{} is no manifest", path.display()))?;
        let name =
            manifest["metadata"]["name"].as_str().context("the manifest has no metadata.name")?.to_owned();
        if let Some(OwnPod { name, uid }) = own {
            let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
            manifest["metadata"]["ownerReferences"] = json!([owner]);
        }
        let sets = self.daemon_sets();
        let parameters = PatchParams::apply("spiderpool-controller").force();
        self.kube
            .write(sets.patch(&name, &parameters, &Patch::Apply(&manifest)))
            .await
            .with_context(|| format!("DaemonSet {name} cannot be applied"))?;
        let waited = self.wait_ready(&name).await;
        // The DaemonSet is deleted whether it has finished or not.
        let removed = self.remove_daemon_set(&name).await;
        let uncleaned = waited?;
        removed?;
        Ok(uncleaned)
    }

    async fn wait_ready(&self, name: &str) -> anyhow::Result<Vec<String>> {
        let sets = self.daemon_sets();
        let end = Instant::now() + self.limit;
        loop {
            let set = self.kube.read(sets.get(name)).await?;
            let uid = set.metadata.uid.clone().unwrap_or_default();
            let unready = self.unready_nodes().await?;
            let pods = self.pods_of(&uid).await?;
            let Some(reason) = unfinished(progress(&set), &pods, &unready) else {
                let nodes = uncleaned(&self.linux_nodes().await?, &pods);
                info!(skipped = ?nodes, "nodes cleaned");
                if !nodes.is_empty() {
                    warn!(
                        ?nodes,
                        "these nodes are not ready, or spiderpoolAgent.nodeSelector, tolerations or affinity leave them out, and were not cleaned: after a reboot only what is in their CNI folders is left"
                    );
                }
                return Ok(nodes);
            };
            ensure!(
                Instant::now() < end,
                "DaemonSet {name} did not finish within {:?}, {reason}: see the logs of its init container clean-node",
                self.limit
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

fn progress(set: &DaemonSet) -> Progress {
    let Some(status) = &set.status else { return Progress::default() };
    Progress {
        is_current: status.observed_generation >= set.metadata.generation,
        desired: usize::try_from(status.desired_number_scheduled).unwrap_or_default(),
    }
}
