//! Whether a pod may have addresses.

/// What decides about a pod's life.
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

/// A pod that is there, not terminating, not finished for good and not evicted. Pending and Unknown are alive.
pub fn is_alive(pod: Option<&PodLife<'_>>) -> bool {
    pod.is_some_and(|pod| !pod.terminating && !is_finished(pod))
}

/// Finished for good or evicted: nothing of it runs. A terminating pod still runs until its grace period is over.
pub fn is_finished(pod: &PodLife<'_>) -> bool {
    match pod.phase {
        "Succeeded" => !matches!(pod.restart_policy, "Always" | ""),
        "Failed" => pod.restart_policy == "Never" || pod.reason == "Evicted",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(phase: &str, restart_policy: &str, reason: &str, alive: bool) {
        let pod = PodLife { terminating: false, phase, reason, restart_policy };
        assert_eq!(is_alive(Some(&pod)), alive, "{pod:?}");
        let terminating = PodLife { terminating: true, ..pod };
        assert!(!is_alive(Some(&terminating)), "{terminating:?}");
        assert_eq!(is_finished(&terminating), !alive, "{terminating:?}");
    }

    #[test]
    fn dead_when_absent_terminating_finished_or_evicted() {
        assert!(!is_alive(None));
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
