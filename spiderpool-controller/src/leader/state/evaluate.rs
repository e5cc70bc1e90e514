//! What to do about a pod that holds addresses or has an endpoint. Pure: the rule that the agents go by too
//! (`spiderpool_core::ipam::release`), with the evidence of an observer outside of the node.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::release::{
    Disposition, Evidence, FreeReason, LeaveReason, NodeState, PodEvidence, ReleasePolicy, SandboxState,
    plan_owner_release,
};
use spiderpool_core::ipam::{Holding, Owner};
use spiderpool_core::names::{NodeName, PodIdentity, PodUid};

use super::cluster_state::ClusterState;

/// The time, and what counts as the end of a terminating pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Now.
    pub(crate) now: Timestamp,
    /// Added to every grace period.
    pub(crate) additional: Duration,
    /// Which overdue pods count as ended.
    pub(crate) release: ReleasePolicy,
}

/// What to do about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodAction {
    /// Nothing.
    None,
    /// Nothing before this time.
    RecheckAt(Timestamp),
    /// The pod runs, and its endpoint lacks an address: write it.
    WriteEndpoint,
    /// The pod runs, and its endpoint names an address whose object is missing: write it again.
    RestoreAddresses,
    /// Its endpoint is being deleted, and there is no address that it is for: let it go.
    FinalizeEndpoint,
    /// Nothing of the pod runs: free its addresses, remove its endpoint.
    Free(FreeReason),
}

/// A pod as the index or the API server has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ObservedPod<'a> {
    /// The UID of the pod that has the name now.
    pub(crate) uid: &'a PodUid,
    /// Its stage.
    pub(crate) stage: PodStage,
    /// Whether all its containers have stopped.
    pub(crate) has_stopped: bool,
    /// When its grace period ends.
    pub(crate) deletion: Option<Timestamp>,
}

impl ClusterState {
    /// By the indexes alone.
    pub(crate) fn evaluate(&self, pod: &PodIdentity, policy: Policy) -> PodAction {
        let observed = self.pods.get(&pod.uid).map(|known| ObservedPod {
            uid: &pod.uid,
            stage: known.stage,
            has_stopped: known.has_stopped,
            deletion: known.deletion,
        });
        let node = match self.node(pod) {
            Some(node) => NodeState::of(self.nodes.is_ready(node.as_str())),
            None => NodeState::NotReady,
        };
        let action = match self.evaluate_observed(pod, observed, node, policy) {
            PodAction::None if observed.is_some_and(|pod| pod.stage == PodStage::Alive) => {
                self.evaluate_records(pod)
            }
            action => action,
        };
        match action {
            PodAction::None if self.has_unused_endpoint(pod) => PodAction::FinalizeEndpoint,
            action => action,
        }
    }

    /// The node that the pod is or was bound to.
    pub(crate) fn node(&self, pod: &PodIdentity) -> Option<NodeName> {
        let of_pod = self.pods.get(&pod.uid).and_then(|known| known.node.as_ref());
        of_pod.or_else(|| self.addresses.node(pod)).cloned()
    }

    /// By what was observed of the pod that has the name now, and of its node. Whether
    /// address objects and endpoint agree is not asked.
    pub(crate) fn evaluate_observed(
        &self,
        pod: &PodIdentity,
        found: Option<ObservedPod<'_>>,
        node: NodeState,
        policy: Policy,
    ) -> PodAction {
        let has_bound = self.addresses.bound(pod).next().is_some();
        // An endpoint that was made to outlive its pod (no owner) and has no addresses here stays.
        let has_endpoint = self.endpoints.of_pod(pod).is_some_and(|endpoint| endpoint.is_owned);
        if !has_bound && !has_endpoint {
            return PodAction::None;
        }
        let additional = SignedDuration::try_from(policy.additional).unwrap_or_default();
        let grace_end = |found: ObservedPod<'_>| match found.stage {
            PodStage::Finished => self.pods.get(found.uid).and_then(|known| known.finishes_at),
            _ => found.deletion.and_then(|at| at.checked_add(additional).ok()),
        };
        let sandbox = if self.addresses.is_detached(pod) {
            SandboxState::Detached { settled: None }
        } else {
            SandboxState::Unknown
        };
        let grace = self.addresses.bound(pod).filter_map(|holding| holding.grace).max();
        let evidence = Evidence {
            now: policy.now,
            pod: found.map(|found| PodEvidence {
                uid: found.uid,
                stage: found.stage,
                has_stopped: found.has_stopped,
                // Whether a NIC was unplugged from a pod that runs, its node's agent decides.
                has_running: false,
                grace_end: grace_end(found),
            }),
            sandbox,
            node,
            may_run_until: self.pods.may_run_until(&pod.uid, grace, policy.now),
        };
        let unknown = || Owner { pod: pod.clone(), workload: None };
        let owner = self.addresses.owner(pod).map_or_else(unknown, |owner| (**owner).clone());
        match plan_owner_release(&owner, &evidence, policy.release) {
            Disposition::Free(cause) => PodAction::Free(cause),
            Disposition::Leave(LeaveReason::MayRun { until }) => PodAction::RecheckAt(until),
            Disposition::Leave(LeaveReason::Terminating { grace_end: Some(end) }) if policy.now < end => {
                PodAction::RecheckAt(end)
            }
            Disposition::Leave(_) | Disposition::Keep => PodAction::None,
        }
    }

    /// Whether address objects and endpoint of a running pod agree. Without an address object, the address may be given
    /// to another pod, so that comes first.
    fn evaluate_records(&self, pod: &PodIdentity) -> PodAction {
        let held = || self.addresses.of_pod(pod).map(|held| (held.nic.as_str(), held.address));
        if self.endpoints.of_pod(pod).is_some_and(|endpoint| endpoint.lists_more_than(held())) {
            PodAction::RestoreAddresses
        } else if self.lacks_endpoint(pod) {
            PodAction::WriteEndpoint
        } else {
            PodAction::None
        }
    }

    /// Whether its endpoint is being deleted and waits for nothing but us.
    fn has_unused_endpoint(&self, pod: &PodIdentity) -> bool {
        self.endpoints.of_pod(pod).is_some_and(|endpoint| endpoint.is_finalizing)
            && self.addresses.of_pod(pod).next().is_none()
    }

    /// Whether the endpoint lacks an address. Of several for one NIC and family it names one.
    fn lacks_endpoint(&self, pod: &PodIdentity) -> bool {
        let attached = self.addresses.bound(pod).filter(|holding| !holding.is_detached);
        let held: Vec<&Holding> = attached.collect();
        let endpoint = self.endpoints.of_pod(pod);
        let is_listed = |holding: &Holding| {
            endpoint.is_some_and(|endpoint| endpoint.lists(holding.nic.as_str(), holding.address))
        };
        held.iter().any(|one| {
            let mut same = held.iter().filter(|other| other.nic == one.nic && other.family() == one.family());
            !same.any(|other| is_listed(other))
        })
    }
}

#[cfg(test)]
mod tests;
