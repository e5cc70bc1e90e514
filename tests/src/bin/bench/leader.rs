//! A control plane with fsync, beside which a controller runs that leads.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spiderpool_tests::control_plane::{ControlPlane, Durability, Options};
use spiderpool_tests::poll;
use spiderpool_tests::standalone_controller::{StandaloneController, Start};

/// An API server has read a kind into its cache within so much time.
const CACHE_LIMIT: Duration = Duration::from_secs(30);
/// After the last of many allocations, agents have written all endpoints, and the leader knows all, within so much time.
const SETTLED_LIMIT: Duration = Duration::from_mins(15);
const GROUP: &str = "/apis/spiderpool.spidernet.io/v2beta1";

/// A control plane in which writes wait for the disk.
pub(crate) fn control_plane() -> Result<ControlPlane> {
    let plane = ControlPlane::start(Options { durability: Durability::Fsync, ..Options::default() })?;
    warm_up(&plane)?;
    Ok(plane)
}

/// An API server answers 429 to the first who reads a kind from its cache, for a second or two: that is nobody's figure.
fn warm_up(plane: &ControlPlane) -> Result<()> {
    for kind in
        ["spiderippools", "spiderippoolusages", "spideripaddresses", "spiderreservedips", "spiderendpoints"]
    {
        let path = format!("{GROUP}/{kind}?limit=1&resourceVersion=0");
        poll::until(kind, CACHE_LIMIT, || plane.kubectl(&["get", "--raw", &path]))?;
    }
    Ok(())
}

/// A controller that leads; its folder goes with it.
pub(crate) struct Leader {
    pub(crate) controller: StandaloneController,
    _folder: tempfile::TempDir,
}

impl Leader {
    pub(crate) async fn start(plane: &ControlPlane) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let environment = [("SPIDERPOOL_LOG_LEVEL", "info")];
        let start = Start {
            folder: folder.path(),
            namespace: "kube-system",
            name: "bench-controller",
            environment: &environment,
        };
        let controller = StandaloneController::start(plane, start).await?;
        poll::until_async("the controller leads", SETTLED_LIMIT, async || {
            ensure!(controller.leads().await?, "it does not");
            Ok(())
        })
        .await?;
        Ok(Self { controller, _folder: folder })
    }

    /// Waits until this many addresses are in use, of as many pods, all endpoints are written and the leader knows it.
    pub(crate) async fn wait_settled(&self, plane: &ControlPlane, in_use: usize) -> Result<()> {
        poll::until_async("what was allocated is known", SETTLED_LIMIT, async || {
            for metric in ["spiderpool_controller_addresses", "spiderpool_controller_pods"] {
                let known = self.controller.metric(metric).await?;
                ensure!((known - in_use as f64).abs() < 0.5, "{metric} is {known}, not {in_use}");
            }
            let written = count(plane, "spiderendpoints")?;
            ensure!(written == in_use, "{written} endpoints of {in_use} are written");
            Ok(())
        })
        .await
    }
}

/// How many objects there are of one of our kinds.
fn count(plane: &ControlPlane, kind: &str) -> Result<usize> {
    let list = plane.kubectl(&["get", "--raw", &format!("{GROUP}/{kind}?limit=1")])?;
    count_of(&serde_json::from_str(&list)?).context("a list without items")
}

/// Of the first page of a list.
fn count_of(list: &Value) -> Option<usize> {
    let remaining = list["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
    Some(list["items"].as_array()?.len() + usize::try_from(remaining).ok()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_on_the_first_page_of_a_list_counts() {
        assert_eq!(count_of(&json!({"metadata": {"remainingItemCount": 9}, "items": [{}]})), Some(10));
        assert_eq!(count_of(&json!({"metadata": {}, "items": []})), Some(0));
        assert_eq!(count_of(&json!({"code": 404})), None);
    }
}
