//! Whether an address is freed: one rule for a DEL, for the agent's sweep and for the controller's leader. They differ
//! in what they know, which is [`Evidence`], and in what they are allowed to conclude from it, which is
//! [`ReleasePolicy`].
//!
//! Something more that can be known of a pod is a field of [`Evidence`], something more to wait for a [`LeaveReason`].

use std::time::Duration;

use super::holding::{AddressState, Holding, Owner};
use super::pod_stage::PodStage;
use super::successor::Successor;
use crate::names::PodUid;

/// What becomes of an address. `T` is a point of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition<T> {
    /// Nothing uses it: its object is deleted.
    Free(FreeReason),
    /// Nothing uses it, and it waits for its owner's successor.
    Keep,
    /// It stays as it is, for now.
    Leave(LeaveReason<T>),
}

/// Why an address is freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FreeReason {
    /// The pod does not exist any more, or another one has its name.
    Gone,
    /// The pod has ended.
    Finished,
    /// The container runtime has taken down the network of a pod that is terminating, or does not know it any more.
    TornDown,
    /// The pod's grace period is over, and its node does not answer or says that the pod has stopped.
    Overdue,
    /// The NIC was detached from the pod, which runs on without it.
    Unplugged,
    /// It was kept for another pod of the name, and none will come, or one has come that runs without it.
    Unclaimed,
    /// Somebody else was seen using it, and the time is over in which nobody was to get it.
    QuarantineOver,
}

impl FreeReason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Gone, Self::Finished, Self::TornDown, Self::Overdue, Self::Unplugged, Self::Unclaimed];

    /// The value of a metric's label, and for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Finished => "finished",
            Self::TornDown => "torn_down",
            Self::Overdue => "overdue",
            Self::Unplugged => "unplugged",
            Self::Unclaimed => "unclaimed",
            Self::QuarantineOver => "quarantine_over",
        }
    }
}

/// Why an address is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveReason<T> {
    /// Its pod is alive.
    InUse,
    /// Its pod is alive, and a DEL has detached its NIC: the ADD of a new sandbox may follow.
    Detached {
        /// When no ADD is expected any more.
        until: T,
    },
    /// Its pod is terminating, or has finished while something of it may still run.
    Terminating {
        /// When its grace period ends or has ended, where that is known.
        grace_end: Option<T>,
    },
    /// The API server forgot the pod while it ran, and its kubelet may not have stopped it yet.
    MayRun {
        /// Until then.
        until: T,
    },
    /// It has processes on its node, whatever the API server says of it.
    Running {
        /// When that is to be looked at again.
        until: T,
    },
    /// Its node does not answer, and by the policy nothing of such a node has ended.
    NodeNotReady,
    /// The mirror of a static pod is gone: that does not stop the pod.
    StaticPod,
    /// Somebody else uses the address on the wire.
    Quarantined,
}

/// What is known of the pod that holds an address.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a, T> {
    /// The time.
    pub now: T,
    /// The pod that has the owner's name now, whichever it is.
    pub pod: Option<PodEvidence<'a, T>>,
    /// The sandbox that uses the address.
    pub sandbox: SandboxState<T>,
    /// The owner's node.
    pub node: NodeState<T>,
    /// Until when the owner may run, if the API server has forgotten it while it ran.
    pub may_run_until: Option<T>,
}

/// What is known of the pod that has a name.
#[derive(Debug, Clone, Copy)]
pub struct PodEvidence<'a, T> {
    /// Its UID.
    pub uid: &'a PodUid,
    /// Where it stands.
    pub stage: PodStage,
    /// Its phase says that all its containers have stopped.
    pub has_stopped: bool,
    /// Its status shows a container that runs: then all ADDs of its present sandbox have succeeded.
    pub has_running: bool,
    /// When the grace period of a terminating or finished pod ends, and what is added to it.
    pub grace_end: Option<T>,
}

/// What is known of the sandbox that uses an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState<T> {
    /// Nothing.
    Unknown,
    /// It has processes: its node's agent sees them, or says so by its Lease.
    Running {
        /// Until then that holds without being confirmed.
        until: T,
    },
    /// The container runtime is taking its network down: this is its DEL.
    TornDown,
    /// The container runtime does not know it: its GC names those that it knows.
    Unlisted,
    /// A DEL has detached the NIC, and no ADD has followed. Either the sandbox was torn down and another one follows, or
    /// the NIC was unplugged: at a DEL they look the same.
    Detached {
        /// When an ADD will have followed that is to follow, if anybody counts that.
        settled: Option<T>,
    },
}

/// The time that the ADD of a new sandbox, and the kubelet's report that containers have stopped, are waited for after
/// a DEL. A report takes up to ten seconds; an ADD that takes longer than this finds no container running.
pub const REATTACH_TIME: Duration = Duration::from_mins(1);

impl<T> SandboxState<T> {
    /// Whether no sandbox uses the address.
    fn is_gone(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Running { .. })
    }
}

/// Whether a pod's node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState<T> {
    /// It does; to its own agent it always does.
    Ready,
    /// It does not. Its kubelet may have died while its pods run, or it is cut off while they answer on the wire.
    NotReady {
        /// From then on its agent would have said that it is alive.
        settled: T,
    },
    /// It is not ready, and has the taint `node.kubernetes.io/out-of-service`: somebody has made sure that nothing runs
    /// there.
    OutOfService,
    /// Its object is gone: whatever ran there counts as ended, its static pods too.
    Deleted,
}

impl<T> NodeState<T> {
    /// From when on nothing is heard of a node that does not answer.
    fn settled(self) -> Option<T> {
        match self {
            Self::NotReady { settled } => Some(settled),
            Self::Ready | Self::OutOfService | Self::Deleted => None,
        }
    }
}

/// Whether a terminating pod whose grace period is over is taken to have ended. By default it is not: then only a DEL
/// ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReleasePolicy {
    /// On a node that answers, once the kubelet has said that the pod's containers have stopped.
    pub overdue_on_ready_nodes: bool,
    /// On a node that does not answer, and has had the time to say that it is alive. The same for pods that the API
    /// server has forgotten.
    pub overdue_on_not_ready_nodes: bool,
}

impl ReleasePolicy {
    fn is_overdue<T: Copy + Ord>(self, pod: &PodEvidence<'_, T>, evidence: &Evidence<'_, T>) -> bool {
        let grace_is_over = pod.grace_end.is_some_and(|end| evidence.now >= end);
        grace_is_over
            && match evidence.node {
                NodeState::Ready => self.overdue_on_ready_nodes && pod.has_stopped,
                NodeState::NotReady { .. } | NodeState::OutOfService | NodeState::Deleted => {
                    self.overdue_on_not_ready_nodes
                }
            }
    }
}

impl<T> Disposition<T> {
    /// The same of what a pod holds that has a successor: nothing of a pod that has ended is freed then.
    #[must_use]
    pub fn with_successor(self, successor: Successor) -> Self {
        match (self, successor) {
            // The pod goes on without the NIC, and so will the next one.
            (Self::Free(reason), Successor::Expected) if reason != FreeReason::Unplugged => Self::Keep,
            (disposition, _) => disposition,
        }
    }
}

/// What becomes of an address.
pub fn plan_release<T: Copy + Ord>(
    holding: &Holding,
    evidence: &Evidence<'_, T>,
    policy: ReleasePolicy,
    successor: Successor,
) -> Disposition<T> {
    match (holding.state, successor) {
        (AddressState::Bound, _) => {
            plan_owner_release(&holding.owner, evidence, policy).with_successor(successor)
        }
        (AddressState::Kept, Successor::Expected) => Disposition::Keep,
        (AddressState::Kept, Successor::None) => Disposition::Free(FreeReason::Unclaimed),
        (AddressState::Quarantined, _) => Disposition::Leave(LeaveReason::Quarantined),
    }
}

/// What becomes of everything that is bound to a pod: its addresses, and its endpoint.
///
/// A pod that is alive loses an address only when its NIC was detached, no ADD has followed within
/// [`REATTACH_TIME`], and a container runs all the same: the ADDs of its sandbox are complete without that NIC.
/// A pod that waits for its next sandbox has no running container, and keeps its addresses.
pub fn plan_owner_release<T: Copy + Ord>(
    owner: &Owner,
    evidence: &Evidence<'_, T>,
    policy: ReleasePolicy,
) -> Disposition<T> {
    let Some(mut pod) = evidence.pod.filter(|pod| *pod.uid == owner.pod.uid) else {
        return plan_missing_pod(owner, evidence, policy);
    };
    // Its agent may still say that the pod runs.
    pod.grace_end = pod.grace_end.map(|end| evidence.node.settled().map_or(end, |settled| end.max(settled)));
    match pod.stage {
        PodStage::Alive => match evidence.sandbox {
            SandboxState::Detached { settled: Some(settled) } if evidence.now < settled => {
                Disposition::Leave(LeaveReason::Detached { until: settled })
            }
            SandboxState::Detached { settled: Some(_) } if pod.has_running => {
                Disposition::Free(FreeReason::Unplugged)
            }
            _ => Disposition::Leave(LeaveReason::InUse),
        },
        PodStage::Finished | PodStage::Terminating => match evidence.sandbox {
            SandboxState::Running { until } => Disposition::Leave(LeaveReason::Running { until }),
            _ => plan_ended_pod(&pod, evidence, policy),
        },
    }
}

/// The pod is terminating or finished, and nobody sees it run.
fn plan_ended_pod<T: Copy + Ord>(
    pod: &PodEvidence<'_, T>,
    evidence: &Evidence<'_, T>,
    policy: ReleasePolicy,
) -> Disposition<T> {
    let is_sandbox_gone = evidence.sandbox.is_gone();
    match pod.stage {
        PodStage::Finished if is_sandbox_gone || pod.grace_end.is_some_and(|end| evidence.now >= end) => {
            Disposition::Free(FreeReason::Finished)
        }
        PodStage::Terminating if is_sandbox_gone => Disposition::Free(FreeReason::TornDown),
        PodStage::Terminating if policy.is_overdue(pod, evidence) => Disposition::Free(FreeReason::Overdue),
        _ => Disposition::Leave(LeaveReason::Terminating { grace_end: pod.grace_end }),
    }
}

/// The API server does not have the pod, or another one has its name.
fn plan_missing_pod<T: Copy + Ord>(
    owner: &Owner,
    evidence: &Evidence<'_, T>,
    policy: ReleasePolicy,
) -> Disposition<T> {
    match evidence.sandbox {
        SandboxState::TornDown | SandboxState::Unlisted => return Disposition::Free(FreeReason::Gone),
        // A pod that is static runs without its mirror, and its next sandbox may follow. An ADD needs the mirror, though.
        sandbox if evidence.pod.is_none() && owner.is_static() && evidence.node != NodeState::Deleted => {
            return match sandbox {
                SandboxState::Detached { settled: Some(settled) } if evidence.now >= settled => {
                    Disposition::Free(FreeReason::Gone)
                }
                SandboxState::Detached { settled: Some(settled) } => {
                    Disposition::Leave(LeaveReason::Detached { until: settled })
                }
                _ => Disposition::Leave(LeaveReason::StaticPod),
            };
        }
        SandboxState::Detached { .. } => return Disposition::Free(FreeReason::Gone),
        SandboxState::Running { until } => return Disposition::Leave(LeaveReason::Running { until }),
        SandboxState::Unknown => {}
    }
    let may_run_until = match evidence.node {
        NodeState::Ready => evidence.may_run_until,
        NodeState::NotReady { .. } if !policy.overdue_on_not_ready_nodes => {
            return Disposition::Leave(LeaveReason::NodeNotReady);
        }
        // Its kubelet stops nothing: the pod's grace period means nothing here.
        NodeState::NotReady { settled } => Some(settled),
        NodeState::OutOfService | NodeState::Deleted => None,
    };
    match may_run_until {
        Some(until) if evidence.now < until => Disposition::Leave(LeaveReason::MayRun { until }),
        _ => Disposition::Free(FreeReason::Gone),
    }
}

#[cfg(test)]
mod tests;
