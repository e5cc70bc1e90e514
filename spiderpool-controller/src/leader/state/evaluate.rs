//! What to do about a pod that holds addresses or has an endpoint. Pure: the rule that the agents go by too
//! (`spiderpool_core::ipam::release`), with the evidence of an observer outside of the node.

use std::time::{Duration, Instant, SystemTime};

use spiderpool_core::ipam::deleted_pods::{DEFAULT_GRACE, may_run_for};
use spiderpool_core::ipam::pod_stage::PodStage;
use spiderpool_core::ipam::release::{
    Disposition, Evidence, FreeReason, LeaveReason, NodeState, PodEvidence, ReleasePolicy, SandboxState,
    plan_owner_release,
};
use spiderpool_core::ipam::{AddressState, Holding, KeptWorkloads, Owner, Successor};
use spiderpool_core::names::{NodeName, PodIdentity, PodUid};

use super::cluster_state::ClusterState;

/// The time, and what counts as the end of a terminating pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    /// Now.
    pub(crate) now: Instant,
    /// Now, by the clock of the machine.
    pub(crate) clock: SystemTime,
    /// Added to every grace period.
    pub(crate) additional: Duration,
    /// Which overdue pods count as ended.
    pub(crate) release: ReleasePolicy,
    /// Which workloads' pods leave their addresses to the next one.
    pub(crate) kept: KeptWorkloads,
}

/// What to do about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PodAction {
    /// Nothing.
    None,
    /// Nothing before this time.
    RecheckAt(Instant),
    /// The pod runs, and its endpoint lacks an address: write it.
    WriteEndpoint,
    /// The pod runs, and its endpoint names an address whose object is missing: write it again.
    RestoreAddresses,
    /// Its endpoint is being deleted, and there is no address that it is for: let it go.
    FinalizeEndpoint,
    /// Nothing of the pod runs: free its addresses, remove its endpoint.
    Free(FreeReason),
    /// Nothing of the pod runs, and another one will come that is to have its addresses: they wait for that.
    Keep,
    /// What the pod has left is used by the one that its virtual machine has moved to: make it that one's.
    HandOver,
    /// What waits for another pod waits in vain: free it.
    FreeKept,
    /// The time is over in which nobody was to get what it was given and somebody else was seen using: free that.
    FreeQuarantined,
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
    /// The grace period that it was deleted with.
    pub(crate) deletion: Option<Duration>,
}

impl ClusterState {
    /// By the indexes alone.
    pub(crate) fn evaluate(&self, pod: &PodIdentity, policy: Policy) -> PodAction {
        let observed = self.pods.get(&pod.uid).map(|known| ObservedPod {
            uid: &pod.uid,
            stage: known.stage,
            has_stopped: known.has_stopped,
            deletion: known.deletion.map(|deletion| deletion.grace),
        });
        let node = match self.node(pod) {
            Some(node) => {
                let readiness = self.nodes.readiness(node.as_str());
                self.nodes.state(node.as_str(), readiness, policy.now)
            }
            None => NodeState::NotReady { settled: policy.now },
        };
        let successor = self.addresses.owner(pod).map(|owner| self.successor(owner, policy.kept));
        let successor = successor.unwrap_or(Successor::None);
        let action = match self.evaluate_observed(pod, observed, node, successor, policy) {
            PodAction::None if observed.is_some_and(|pod| pod.stage == PodStage::Alive) => {
                self.evaluate_records(pod)
            }
            action => action,
        };
        match action {
            // Before anything is freed: they may use it, whether another pod will come or not.
            PodAction::None | PodAction::FreeKept
                if self.addresses.kept_by(pod).any(|left| !self.targets_of(left).is_empty()) =>
            {
                PodAction::HandOver
            }
            PodAction::None if self.has_unused_endpoint(pod) => PodAction::FinalizeEndpoint,
            action => self.review_quarantined(pod, action, policy),
        }
    }

    /// The action, or where nothing is to be done now, what is due of what is quarantined.
    fn review_quarantined(&self, pod: &PodIdentity, action: PodAction, policy: Policy) -> PodAction {
        let ends = self.addresses.quarantined(pod).filter_map(|holding| holding.quarantine.as_ref());
        let Some(end) = ends.map(|quarantine| quarantine.until).min() else { return action };
        let left = end.duration_since(policy.clock).unwrap_or_default();
        let due = policy.now.checked_add(left);
        match (action, due) {
            (PodAction::None | PodAction::RecheckAt(_), _) if left.is_zero() => PodAction::FreeQuarantined,
            (PodAction::None, Some(due)) => PodAction::RecheckAt(due),
            (PodAction::RecheckAt(at), Some(due)) => PodAction::RecheckAt(at.min(due)),
            (action, _) => action,
        }
    }

    /// The node that the pod is or was bound to.
    pub(crate) fn node(&self, pod: &PodIdentity) -> Option<NodeName> {
        let of_pod = self.pods.get(&pod.uid).and_then(|known| known.node.as_ref());
        of_pod.or_else(|| self.addresses.node(pod)).cloned()
    }

    /// By what was observed of the pod that has the name now, of its node, and of what makes another one of the name. Whether
    /// address objects and endpoint agree is not asked.
    pub(crate) fn evaluate_observed(
        &self,
        pod: &PodIdentity,
        found: Option<ObservedPod<'_>>,
        node: NodeState<Instant>,
        successor: Successor,
        policy: Policy,
    ) -> PodAction {
        let has_bound = self.addresses.bound(pod).next().is_some();
        // An endpoint that was made to outlive its pod (no owner) and has no addresses here stays.
        let has_endpoint = self.endpoints.of_pod(pod).is_some_and(|endpoint| endpoint.is_owned);
        if !has_bound && !has_endpoint {
            let waits_in_vain = successor == Successor::None && self.addresses.kept_by(pod).next().is_some();
            return if waits_in_vain { PodAction::FreeKept } else { PodAction::None };
        }
        let evidence = Evidence {
            now: policy.now,
            pod: found.map(|found| PodEvidence {
                uid: found.uid,
                stage: found.stage,
                has_stopped: found.has_stopped,
                // Whether a NIC was unplugged from a pod that runs, its node's agent decides.
                has_running: false,
                grace_end: self.grace_end(found, policy),
            }),
            sandbox: self.sandbox(pod, policy.now),
            node,
            may_run_until: self.may_run_until(pod, node, policy.now),
        };
        let unknown = || Owner { pod: pod.clone(), workload: None, virtual_machine: None };
        let owner = self.addresses.owner(pod).map_or_else(unknown, |owner| (**owner).clone());
        match plan_owner_release(&owner, &evidence, policy.release).with_successor(successor) {
            Disposition::Free(cause) => PodAction::Free(cause),
            Disposition::Keep => PodAction::Keep,
            Disposition::Leave(LeaveReason::MayRun { until } | LeaveReason::Running { until }) => {
                PodAction::RecheckAt(until)
            }
            Disposition::Leave(LeaveReason::Terminating { grace_end: Some(end) }) if policy.now < end => {
                PodAction::RecheckAt(end)
            }
            Disposition::Leave(_) => PodAction::None,
        }
    }

    /// The pods that may use what an earlier one of their virtual machine has left: they say that it has moved to them.
    pub(crate) fn targets_of(&self, left: &Holding) -> Vec<PodIdentity> {
        if left.owner.virtual_machine.is_none() {
            return Vec::new();
        }
        let may_use = |pod: &&PodIdentity| {
            let mut bound = self.addresses.bound(pod);
            let has_own = bound.any(|own| own.nic == left.nic && own.family() == left.family());
            self.is_alive(&pod.uid) && !has_own
        };
        self.migration_targets.of(&left.owner.endpoint_name()).filter(may_use).cloned().collect()
    }

    fn is_alive(&self, uid: &PodUid) -> bool {
        self.pods.get(uid).is_some_and(|known| known.stage == PodStage::Alive)
    }

    /// Until when a pod may run that the API server has forgotten. A kubelet that was cut off hears of it when its node is
    /// ready again, and grants the grace period then.
    fn may_run_until(&self, pod: &PodIdentity, node: NodeState<Instant>, now: Instant) -> Option<Instant> {
        let grace = self.addresses.bound(pod).filter_map(|holding| holding.grace).max();
        let known = self.pods.may_run_until(&pod.uid, grace, now);
        let returned_at = match (node, self.node(pod)) {
            (NodeState::Ready, Some(name)) => self.nodes.returned_at(name.as_str(), now),
            _ => None,
        };
        let after_return =
            returned_at.and_then(|at| at.checked_add(may_run_for(grace.unwrap_or(DEFAULT_GRACE))));
        known.max(after_return.filter(|until| now < *until))
    }

    /// When the grace period of a terminating or finished pod ends.
    fn grace_end(&self, found: ObservedPod<'_>, policy: Policy) -> Option<Instant> {
        let known = self.pods.get(found.uid);
        if found.stage == PodStage::Finished {
            return known.and_then(|known| known.finishes_at);
        }
        // A deletion that the watch has not delivered yet begins now.
        let unseen = || policy.now.checked_add(found.deletion?);
        let seen = known.and_then(|known| known.deletion);
        seen.map_or_else(unseen, |deletion| deletion.ends_at)?.checked_add(policy.additional)
    }

    /// What is known of the sandboxes of a pod.
    fn sandbox(&self, pod: &PodIdentity, now: Instant) -> SandboxState<Instant> {
        let runs_until = self.node(pod).and_then(|node| self.node_leases.runs_until(&node, &pod.uid));
        match runs_until.filter(|until| now < *until) {
            Some(until) => SandboxState::Running { until },
            None if self.addresses.is_detached(pod) => SandboxState::Detached { settled: None },
            None => SandboxState::Unknown,
        }
    }

    /// Whether address objects and endpoint of a running pod agree. Without an address object, the address may be given
    /// to another pod, so that comes first.
    fn evaluate_records(&self, pod: &PodIdentity) -> PodAction {
        let held = || self.addresses.of_pod(pod).map(|held| (held.nic.as_str(), held.address));
        if self.endpoints.of_pod(pod).is_some_and(|endpoint| endpoint.lists_more_than(held())) {
            PodAction::RestoreAddresses
        } else if self.lacks_endpoint(pod) && !self.waits_for_endpoint(pod) && !self.is_barred(pod) {
            PodAction::WriteEndpoint
        } else {
            PodAction::None
        }
    }

    /// Endpoints that were made to outlive their pods, of pods that are gone and left nothing.
    pub(crate) fn unused_endpoints(&self) -> impl Iterator<Item = PodIdentity> + '_ {
        let is_unused = |pod: &PodIdentity| {
            self.endpoints.of_pod(pod).is_some_and(|endpoint| !endpoint.is_owned)
                && self.pods.get(&pod.uid).is_none()
                && self.addresses.of_pod(pod).next().is_none()
                && self.addresses.kept_for(self.endpoints.name(pod)).next().is_none()
        };
        self.endpoints.pods().filter(is_unused)
    }

    /// Whether the endpoint is still that of the pod that a virtual machine moves from to this one.
    fn waits_for_endpoint(&self, pod: &PodIdentity) -> bool {
        let owner = self.addresses.owner(pod).filter(|owner| owner.virtual_machine.is_some());
        let holder = owner.and_then(|owner| self.endpoints.holder(&owner.endpoint_name()));
        holder.is_some_and(|holder| *holder != pod.uid && self.is_alive(holder))
    }

    /// Whether the endpoint of the name is not for the pod to have: nothing would be written.
    fn is_barred(&self, pod: &PodIdentity) -> bool {
        self.addresses.owner(pod).is_some_and(|owner| self.endpoints.is_barred(owner))
    }

    /// Whether its endpoint is being deleted and waits for nothing but us.
    fn has_unused_endpoint(&self, pod: &PodIdentity) -> bool {
        // What is quarantined is not the pod's any more.
        let is_its_own = |holding: &Holding| holding.state != AddressState::Quarantined;
        self.endpoints.of_pod(pod).is_some_and(|endpoint| endpoint.is_finalizing)
            && !self.addresses.of_pod(pod).any(is_its_own)
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
