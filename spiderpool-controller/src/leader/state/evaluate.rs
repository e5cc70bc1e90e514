//! What to do about a pod that holds addresses or has an endpoint. Pure: the agents' rule (`spiderpool_core::ipam::alive`)
//! and what only an observer outside of the node can decide.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spiderpool_core::ipam::Holding;
use spiderpool_core::ipam::alive::{Ending, Fate, OverdueRules, Stage, fate};

use super::{ClusterState, PodId};

/// The time, and what counts as the end of a terminating pod.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Now.
    pub now: Timestamp,
    /// Added to every grace period.
    pub additional: Duration,
    /// On which nodes an overdue pod counts as finished.
    pub rules: OverdueRules,
}

/// What to do about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodAction {
    /// Nothing.
    None,
    /// Nothing before this time.
    RecheckAt(Timestamp),
    /// The pod runs, and its endpoint lacks an address: write it.
    WriteEndpoint,
    /// Nothing of the pod runs: free its addresses, remove its endpoint.
    Free(FreeReason),
}

/// Why a pod's addresses are freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FreeReason {
    /// The pod does not exist.
    Gone,
    /// The pod has ended or was evicted.
    Finished,
    /// Its grace period is over, and its node is not ready or reports that its containers have stopped.
    Overdue,
}

impl FreeReason {
    /// The label of metrics, and the field of logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Finished => "finished",
            Self::Overdue => "overdue",
        }
    }
}

/// A pod as the index or the API server has it.
#[derive(Debug, Clone, Copy)]
pub struct ObservedPod<'a> {
    /// The UID of the pod that has the name now.
    pub uid: &'a str,
    /// Its stage.
    pub stage: Stage,
    /// Whether all its containers have stopped.
    pub has_stopped: bool,
    /// When its grace period ends.
    pub deletion: Option<Timestamp>,
}

impl ClusterState {
    /// By the indexes alone.
    pub fn evaluate(&self, id: &PodId, policy: Policy) -> PodAction {
        let observed = self.pods.get(&id.uid).map(|pod| ObservedPod {
            uid: &id.uid,
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion,
        });
        let node_is_ready = self.node(id).is_some_and(|node| self.nodes.is_ready(&node));
        match self.evaluate_observed(id, observed, node_is_ready, policy) {
            PodAction::None
                if observed.is_some_and(|pod| pod.stage == Stage::Alive) && self.lacks_endpoint(id) =>
            {
                PodAction::WriteEndpoint
            }
            action => action,
        }
    }

    /// The node that the pod is or was bound to.
    pub fn node(&self, id: &PodId) -> Option<Arc<str>> {
        let of_pod = self.pods.get(&id.uid).map(|pod| Arc::clone(&pod.node)).filter(|node| !node.is_empty());
        of_pod.or_else(|| self.addresses.holder(id).map(|holder| Arc::clone(&holder.node)))
    }

    /// By what was observed of the pod that has the name now, and of its node. Never [`PodAction::WriteEndpoint`].
    pub fn evaluate_observed(
        &self,
        id: &PodId,
        found: Option<ObservedPod<'_>>,
        node_is_ready: bool,
        policy: Policy,
    ) -> PodAction {
        let holder = self.addresses.holder(id);
        let has_bound = holder.is_some() && !self.addresses.bound(id).is_empty();
        // An endpoint that was made to outlive its pod (no owner) and has no addresses here stays.
        let has_endpoint = self.endpoints.of(id).is_some_and(|endpoint| endpoint.is_owned);
        if !has_bound && !has_endpoint {
            return PodAction::None;
        }
        let grace_end = |pod: ObservedPod<'_>| {
            let additional = SignedDuration::try_from(policy.additional).unwrap_or_default();
            pod.deletion.and_then(|at| at.checked_add(additional).ok())
        };
        let is_over = |pod: ObservedPod<'_>| {
            policy.rules.is_over(Ending {
                grace_is_over: grace_end(pod).is_some_and(|end| policy.now >= end),
                has_stopped: pod.has_stopped,
                node_is_ready,
            })
        };
        let overdue = found.is_some_and(|pod| pod.stage == Stage::Terminating && is_over(pod));
        let stage = |pod: ObservedPod<'_>| if overdue { Stage::Finished } else { pod.stage };
        let is_static = holder.is_some_and(super::Holder::is_static);
        match fate(&id.uid, is_static, found.map(|pod| (pod.uid, stage(pod)))) {
            Fate::Kept => PodAction::None,
            Fate::Left => match found.and_then(grace_end).filter(|end| policy.now < *end) {
                Some(end) => PodAction::RecheckAt(end),
                None => PodAction::None,
            },
            Fate::Freed => {
                let is_gone = found.is_none_or(|pod| pod.uid != &*id.uid);
                // While its node is ready, its agent frees the addresses of a pod that vanished.
                let runs_until = || self.pods.may_run_until(&id.uid, policy.now);
                match (is_gone && node_is_ready).then(runs_until).flatten() {
                    Some(end) => PodAction::RecheckAt(end),
                    None => PodAction::Free(free_reason(id, found, overdue)),
                }
            }
        }
    }

    /// Whether the endpoint lacks an address. Of several for one NIC and family it names one.
    fn lacks_endpoint(&self, id: &PodId) -> bool {
        let held = self.addresses.held(id);
        let endpoint = self.endpoints.of(id);
        held.iter().any(|one| {
            let mut same = held.iter().filter(|other| other.nic == one.nic && other.family() == one.family());
            let is_listed = |other: &Holding| {
                endpoint.is_some_and(|endpoint| endpoint.lists(other.nic.as_str(), other.address))
            };
            !same.any(is_listed)
        })
    }
}

fn free_reason(id: &PodId, found: Option<ObservedPod<'_>>, overdue: bool) -> FreeReason {
    match found {
        Some(pod) if pod.uid == &*id.uid && overdue => FreeReason::Overdue,
        Some(pod) if pod.uid == &*id.uid => FreeReason::Finished,
        _ => FreeReason::Gone,
    }
}

#[cfg(test)]
mod tests;
