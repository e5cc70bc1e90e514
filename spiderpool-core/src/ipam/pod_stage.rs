//! Where a pod stands in its life, as far as addresses depend on it.

/// What decides about it, as the API server says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodLife<'a> {
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// `status.phase`.
    pub phase: &'a str,
    /// The object mirrors a static pod.
    pub is_mirror: bool,
}

impl PodLife<'_> {
    /// Since Kubernetes 1.22 a kubelet restarts no pod in a final phase, whatever its restart policy. A static pod keeps
    /// its UID, and its mirror the phase, when its kubelet starts it again after a shutdown of the node.
    fn is_finished(&self) -> bool {
        !self.is_mirror && matches!(self.phase, "Succeeded" | "Failed")
    }
}

/// Where a pod stands in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PodStage {
    /// It may get and keep addresses; Pending and Unknown too.
    #[default]
    Alive,
    /// In its grace period: something of it may still run.
    Terminating,
    /// It is never started again. The phase may have been set without its kubelet: something of it may still run.
    Finished,
}

impl PodStage {
    /// By what the API server says of the pod.
    pub fn of(life: &PodLife<'_>) -> Self {
        match (life.is_finished(), life.terminating) {
            (true, _) => Self::Finished,
            (false, true) => Self::Terminating,
            (false, false) => Self::Alive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(phase: &str, is_mirror: bool, alive: bool) {
        let pod = PodLife { terminating: false, phase, is_mirror };
        let expect = |otherwise| if alive { otherwise } else { PodStage::Finished };
        assert_eq!(PodStage::of(&pod), expect(PodStage::Alive), "{pod:?}");
        let terminating = PodLife { terminating: true, ..pod };
        assert_eq!(PodStage::of(&terminating), expect(PodStage::Terminating), "{terminating:?}");
    }

    #[test]
    fn a_final_phase_finishes_every_pod_but_a_static_one() {
        for phase in ["Running", "Pending", "Unknown", ""] {
            check(phase, false, true);
            check(phase, true, true);
        }
        for phase in ["Succeeded", "Failed"] {
            check(phase, false, false);
            check(phase, true, true);
        }
    }
}
