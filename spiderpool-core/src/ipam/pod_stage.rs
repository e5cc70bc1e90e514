//! Where a pod stands in its life, as far as addresses depend on it.

/// What decides about it, as the API server says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodLife<'a> {
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// `status.phase`.
    pub phase: &'a str,
    /// `status.reason`.
    pub reason: &'a str,
    /// `spec.restartPolicy`; empty means Always.
    pub restart_policy: &'a str,
}

impl PodLife<'_> {
    /// Finished for good or evicted. A terminating pod still runs until its grace period is over.
    fn is_finished(&self) -> bool {
        match self.phase {
            "Succeeded" => !matches!(self.restart_policy, "Always" | ""),
            "Failed" => self.restart_policy == "Never" || self.reason == "Evicted",
            _ => false,
        }
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
    /// Nothing of it runs any more.
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
    fn check(phase: &str, restart_policy: &str, reason: &str, alive: bool) {
        let pod = PodLife { terminating: false, phase, reason, restart_policy };
        let expect = |otherwise| if alive { otherwise } else { PodStage::Finished };
        assert_eq!(PodStage::of(&pod), expect(PodStage::Alive), "{pod:?}");
        let terminating = PodLife { terminating: true, ..pod };
        assert_eq!(PodStage::of(&terminating), expect(PodStage::Terminating), "{terminating:?}");
    }

    #[test]
    fn a_pod_is_finished_by_phase_restart_policy_and_reason() {
        for policy in ["Always", "OnFailure", "Never"] {
            check("Running", policy, "", true);
            check("Pending", policy, "", true);
            check("Unknown", policy, "", true);
            check("Failed", policy, "Evicted", false);
            check("Succeeded", policy, "", policy == "Always");
            check("Failed", policy, "", policy != "Never");
        }
        check("Succeeded", "", "", true);
    }
}
