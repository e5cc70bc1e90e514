//! Whether a pod may have addresses, and what becomes of those that it holds when nobody asks.

pub use super::pod_stage::{PodLife, PodStage as Stage};

/// What becomes of a pod's addresses if nobody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They are in use.
    Kept,
    /// They may be in use: DEL frees them.
    Left,
    /// Nothing uses them.
    Freed,
}

/// The fate of what the pod `uid` holds, by the UID and stage of the pod that has its name now. `is_static`: the
/// kubelet runs it from a manifest of its own, and the pod on the API server is a mirror.
pub fn fate(uid: &str, is_static: bool, found: Option<(&str, Stage)>) -> Fate {
    match found {
        Some((of, Stage::Alive)) if of == uid => Fate::Kept,
        Some((of, Stage::Terminating)) if of == uid => Fate::Left,
        // Deleting the mirror of a static pod does not stop the pod.
        None if is_static => Fate::Left,
        _ => Fate::Freed,
    }
}

/// How far the end of a terminating pod has come, as seen from outside of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Its grace period is over, and what was added to it.
    pub grace_is_over: bool,
    /// Its kubelet has said that all containers have stopped.
    pub has_stopped: bool,
    /// Its node answers.
    pub node_is_ready: bool,
}

/// Whether terminating pods whose grace period is over are taken to be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverdueRules {
    /// On a node that answers, once the kubelet has said that they have stopped.
    pub on_ready_nodes: bool,
    /// On a node that does not answer.
    pub on_dead_nodes: bool,
}

impl OverdueRules {
    /// Whether the pod is taken to be finished although it is still there.
    pub fn is_over(self, ending: Ending) -> bool {
        let node =
            if ending.node_is_ready { self.on_ready_nodes && ending.has_stopped } else { self.on_dead_nodes };
        ending.grace_is_over && node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_gone_replaced_or_finished_is_freed() {
        let fate = |found| fate("u", false, found);
        assert_eq!(fate(Some(("u", Stage::Alive))), Fate::Kept);
        assert_eq!(fate(Some(("u", Stage::Terminating))), Fate::Left, "the grace period");
        assert_eq!(fate(Some(("u", Stage::Finished))), Fate::Freed);
        assert_eq!(fate(Some(("other", Stage::Alive))), Fate::Freed);
        assert_eq!(fate(None), Fate::Freed);
    }

    #[test]
    fn a_static_pod_outlives_its_mirror() {
        assert_eq!(fate("u", true, None), Fate::Left);
        assert_eq!(fate("u", true, Some(("other", Stage::Alive))), Fate::Freed);
    }

    /// Upstream waits the grace period twice; the caller gives the end of the one that the API server names.
    #[test]
    fn an_overdue_pod_is_over_on_a_dead_node_or_when_it_has_stopped() {
        let rules = OverdueRules { on_ready_nodes: true, on_dead_nodes: true };
        let ending =
            |grace_is_over, has_stopped, node_is_ready| Ending { grace_is_over, has_stopped, node_is_ready };
        assert!(!rules.is_over(ending(false, true, false)));
        assert!(rules.is_over(ending(true, false, false)));
        assert!(rules.is_over(ending(true, true, true)));
        assert!(!rules.is_over(ending(true, false, true)), "its kubelet is at work");
        let none = OverdueRules { on_ready_nodes: false, on_dead_nodes: false };
        assert!(!none.is_over(ending(true, true, true)) && !none.is_over(ending(true, true, false)));
    }
}
