//! Which addresses stay, and which nodes have finished. Pure.

use std::collections::BTreeSet;

use spiderpool_api::pod::{Pod, PodObject};
use spiderpool_core::ipam::Holding;
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::release::{
    Disposition, Evidence, NodeState, PodEvidence, ReleasePolicy, SandboxState, plan_owner_release,
};
use spiderpool_core::names::{NameError, PodIdentity};

/// A pod, as far as addresses need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedPod {
    pub(super) identity: PodIdentity,
    pub(super) stage: PodStage,
    pub(super) has_stopped: bool,
}

impl TryFrom<PodObject> for ListedPod {
    type Error = NameError;

    fn try_from(pod: PodObject) -> Result<Self, NameError> {
        let pod = Pod::try_from(pod)?;
        Ok(Self { identity: pod.identity, stage: pod.stage, has_stopped: pod.has_stopped })
    }
}

/// Whether a pod may still use the address: then no other pod may get it, also not after a new installation. By what
/// the API server says alone.
pub(super) fn may_be_in_use(holding: &Holding, found: Option<&ListedPod>) -> bool {
    let pod = found.map(|found| PodEvidence {
        uid: &found.identity.uid,
        stage: found.stage,
        has_stopped: found.has_stopped,
        has_running: false,
        // The programs are removed: nobody would wait for the end of a finished pod's grace period.
        grace_end: (found.stage == PodStage::Finished).then_some(()),
    });
    let evidence = Evidence {
        now: (),
        pod,
        sandbox: SandboxState::Unknown,
        // What the API server has forgotten is not waited for.
        node: NodeState::OutOfService,
        may_run_until: None,
    };
    // What waits for a pod is of no use to an installation that is removed.
    let disposition = plan_owner_release(&holding.owner, &evidence, ReleasePolicy::default());
    !matches!(disposition, Disposition::Free(_))
}

/// A pod of a DaemonSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DaemonPod {
    /// Its node.
    pub(super) node: String,
    /// Whether it is ready.
    pub(super) is_ready: bool,
}

/// The ready nodes that still have a pod of the workload.
pub(super) fn remaining_nodes(pods: &[DaemonPod], unready: &BTreeSet<String>) -> Vec<String> {
    let nodes = pods.iter().map(|pod| &pod.node).filter(|node| !unready.contains(*node));
    nodes.cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The nodes on which no pod of the DaemonSet has finished.
pub(super) fn uncleaned(nodes: &[String], pods: &[DaemonPod]) -> Vec<String> {
    let is_clean = |node: &String| pods.iter().any(|pod| pod.is_ready && pod.node == *node);
    nodes.iter().filter(|node| !is_clean(node)).cloned().collect()
}

/// The progress of a DaemonSet by its status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Whether the status is about the DaemonSet as it is now.
    pub(super) is_current: bool,
    /// On how many nodes it is to run.
    pub(super) desired: usize,
}

/// Why the DaemonSet has not finished on all ready nodes; `None` if it has.
pub(super) fn unfinished(
    progress: Progress,
    pods: &[DaemonPod],
    unready: &BTreeSet<String>,
) -> Option<String> {
    if !progress.is_current {
        return Some("the DaemonSet controller has not observed the DaemonSet yet".to_owned());
    }
    if pods.len() < progress.desired {
        return Some(format!("{} of {} pods exist", pods.len(), progress.desired));
    }
    let waiting = pods.iter().filter(|pod| !pod.is_ready && !unready.contains(&pod.node));
    let waiting: Vec<&str> = waiting.map(|pod| pod.node.as_str()).collect();
    (!waiting.is_empty()).then(|| format!("not done on {}", waiting.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_api::crd::SpiderIPAddress;
    use spiderpool_core::names::PodName;

    use super::*;

    fn held(is_static: bool) -> Holding {
        let spec = json!({
            "address": "10.6.0.9/16", "pool": "p", "interface": "net1", "podNamespace": "n", "podName": "p",
            "podUID": "u", "ownerKind": if is_static { "Node" } else { "Deployment" }, "ownerName": "o",
        });
        let object = json!({"metadata": {"name": "10.6.0.9"}, "spec": spec});
        Holding::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
    }

    fn listed(uid: &str, stage: PodStage) -> ListedPod {
        let identity = PodIdentity { name: PodName::new("n", "p").unwrap(), uid: uid.parse().unwrap() };
        ListedPod { identity, stage, has_stopped: false }
    }

    #[test]
    fn an_address_that_a_pod_may_use_is_in_use() {
        assert!(may_be_in_use(&held(false), Some(&listed("u", PodStage::Alive))));
        assert!(may_be_in_use(&held(false), Some(&listed("u", PodStage::Terminating))));
        assert!(!may_be_in_use(&held(false), Some(&listed("u", PodStage::Finished))));
        assert!(!may_be_in_use(&held(false), Some(&listed("other", PodStage::Alive))));
        assert!(!may_be_in_use(&held(false), None));
        assert!(may_be_in_use(&held(true), None));
    }

    #[test]
    fn a_node_that_is_not_ready_is_not_waited_for() {
        let unready = BTreeSet::from(["n2".to_owned()]);
        let pod = |node: &str, is_ready| DaemonPod { node: node.into(), is_ready };
        let pods = [pod("n1", false), pod("n2", false)];
        assert_eq!(remaining_nodes(&pods, &unready), ["n1"]);
        let progress = Progress { is_current: true, desired: 2 };
        assert!(unfinished(progress, &pods, &unready).unwrap().contains("n1"));
        assert_eq!(unfinished(progress, &[pod("n1", true), pod("n2", false)], &unready), None);
        assert!(unfinished(progress, &pods[..1], &unready).unwrap().contains("1 of 2"));
        assert!(unfinished(Progress::default(), &[], &unready).is_some());
    }

    /// Also one that the agents' selectors leave out: it may have had an agent before.
    #[test]
    fn a_node_without_a_finished_pod_is_not_clean() {
        let pod = |node: &str, is_ready| DaemonPod { node: node.into(), is_ready };
        let nodes = ["n1", "n2", "left-out"].map(str::to_owned);
        assert_eq!(uncleaned(&nodes, &[pod("n1", true), pod("n2", false)]), ["n2", "left-out"]);
        assert_eq!(uncleaned(&nodes[..1], &[pod("n1", true)]), Vec::<String>::new());
    }
}
