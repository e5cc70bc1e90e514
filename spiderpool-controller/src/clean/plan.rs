//! Which addresses stay, and which nodes have finished. Pure.

use std::collections::BTreeSet;

use spiderpool_api::pod::{self, PodObject};
use spiderpool_core::ipam::alive::{Fate, Stage, fate};

/// The pod that holds an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldBy {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) is_static: bool,
}

/// Pods by name, as far as addresses need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Living {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) stage: Stage,
}

impl From<PodObject> for Living {
    fn from(pod: PodObject) -> Self {
        let (uid, stage) = (pod::uid(&pod.metadata).to_owned(), pod.stage());
        let (namespace, name) = (pod.metadata.namespace, pod.metadata.name);
        Self { namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default(), uid, stage }
    }
}

/// Whether a pod may still use the address: then no other pod may get it, also not after a new installation.
pub(super) fn stays(held: &HeldBy, found: Option<&Living>) -> bool {
    let found = found.map(|pod| (pod.uid.as_str(), pod.stage));
    fate(&held.uid, held.is_static, found) != Fate::Freed
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

/// The progress of a DaemonSet by its status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Whether the status is about the DaemonSet as it is now.
    pub(super) is_current: bool,
    /// On how many nodes it is to run.
    pub(super) wanted: usize,
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
    if pods.len() < progress.wanted {
        return Some(format!("{} of {} pods exist", pods.len(), progress.wanted));
    }
    let waiting = pods.iter().filter(|pod| !pod.is_ready && !unready.contains(&pod.node));
    let waiting: Vec<&str> = waiting.map(|pod| pod.node.as_str()).collect();
    (!waiting.is_empty()).then(|| format!("not done on {}", waiting.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(is_static: bool) -> HeldBy {
        HeldBy { namespace: "n".into(), name: "p".into(), uid: "u".into(), is_static }
    }

    fn living(uid: &str, stage: Stage) -> Living {
        Living { namespace: "n".into(), name: "p".into(), uid: uid.into(), stage }
    }

    #[test]
    fn an_address_that_a_pod_may_use_stays() {
        assert!(stays(&held(false), Some(&living("u", Stage::Alive))));
        assert!(stays(&held(false), Some(&living("u", Stage::Terminating))));
        assert!(!stays(&held(false), Some(&living("u", Stage::Finished))));
        assert!(!stays(&held(false), Some(&living("other", Stage::Alive))));
        assert!(!stays(&held(false), None));
        assert!(stays(&held(true), None));
    }

    #[test]
    fn a_node_that_is_not_ready_is_not_waited_for() {
        let unready = BTreeSet::from(["n2".to_owned()]);
        let pod = |node: &str, is_ready| DaemonPod { node: node.into(), is_ready };
        let pods = [pod("n1", false), pod("n2", false)];
        assert_eq!(remaining_nodes(&pods, &unready), ["n1"]);
        let progress = Progress { is_current: true, wanted: 2 };
        assert!(unfinished(progress, &pods, &unready).unwrap().contains("n1"));
        assert_eq!(unfinished(progress, &[pod("n1", true), pod("n2", false)], &unready), None);
        assert!(unfinished(progress, &pods[..1], &unready).unwrap().contains("1 of 2"));
        assert!(unfinished(Progress::default(), &[], &unready).is_some());
    }
}
