//! What is to be done about a pod that holds addresses or has an endpoint. Pure: the same rule as the agents'
//! (`spiderpool_core::ipam::alive`), and what only somebody outside of the node can say.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::alive::{Ending, Fate, OverdueRules, Stage, fate};

use super::{PodId, World};

/// The time, and what is believed of pods whose time is over.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Now.
    pub now: Timestamp,
    /// Added to every grace period.
    pub additional: Duration,
    /// Whether overdue pods are finished.
    pub rules: OverdueRules,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// Nothing before this time.
    Later(Timestamp),
    /// The pod runs, and its endpoint lacks an address.
    WriteEndpoint,
    /// Nothing of the pod runs: what it holds is freed, its endpoint removed.
    Free(Cause),
}

/// Why a pod's addresses are freed; also the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// There is no such pod.
    Gone,
    /// The pod has ended or was evicted.
    Finished,
    /// Its grace period is over, and its node does not answer or says that it has stopped.
    Overdue,
}

impl Cause {
    /// A word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Finished => "finished",
            Self::Overdue => "overdue",
        }
    }
}

/// How a pod stands, from the index or from the API server.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// The UID of the pod that has the name.
    pub uid: &'a str,
    /// Its stage.
    pub stage: Stage,
    /// Whether all its containers have stopped.
    pub has_stopped: bool,
    /// When its grace period ends.
    pub deletion: Option<Timestamp>,
}

impl World {
    /// By what the watches say.
    pub fn judge(&self, id: &PodId, clock: Clock) -> Verdict {
        let standing = self.pods.get(&id.uid).map(|pod| Standing {
            uid: &id.uid,
            stage: pod.stage,
            has_stopped: pod.has_stopped,
            deletion: pod.deletion,
        });
        let node_is_ready = self.node(id).is_some_and(|node| self.nodes.is_ready(&node));
        match self.judge_pod(id, standing, node_is_ready, clock) {
            Verdict::Fine
                if standing.is_some_and(|pod| pod.stage == Stage::Alive) && self.lacks_endpoint(id) =>
            {
                Verdict::WriteEndpoint
            }
            verdict => verdict,
        }
    }

    /// The node that runs the pod, or ran it.
    pub fn node(&self, id: &PodId) -> Option<Arc<str>> {
        let of_pod = self.pods.get(&id.uid).map(|pod| Arc::clone(&pod.node)).filter(|node| !node.is_empty());
        of_pod.or_else(|| self.addresses.holder(id).map(|holder| Arc::clone(&holder.node)))
    }

    /// By what is said of the pod that has the name now, and of its node; never asks for an endpoint.
    pub fn judge_pod(
        &self,
        id: &PodId,
        found: Option<Standing<'_>>,
        node_is_ready: bool,
        clock: Clock,
    ) -> Verdict {
        let holder = self.addresses.holder(id);
        let has_bound = holder.is_some() && !self.addresses.bound(id).is_empty();
        // An endpoint that was made to outlive its pod, and has no addresses here, is not ours to judge.
        let has_endpoint = self.endpoints.of(id).is_some_and(|endpoint| endpoint.is_owned);
        if !has_bound && !has_endpoint {
            return Verdict::Fine;
        }
        let grace_end = |pod: Standing<'_>| {
            let additional = SignedDuration::try_from(clock.additional).unwrap_or_default();
            pod.deletion.and_then(|at| at.checked_add(additional).ok())
        };
        let is_over = |pod: Standing<'_>| {
            clock.rules.is_over(Ending {
                grace_is_over: grace_end(pod).is_some_and(|end| clock.now >= end),
                has_stopped: pod.has_stopped,
                node_is_ready,
            })
        };
        let overdue = found.is_some_and(|pod| pod.stage == Stage::Terminating && is_over(pod));
        let stage = |pod: Standing<'_>| if overdue { Stage::Finished } else { pod.stage };
        let is_static = holder.is_some_and(super::Holder::is_static);
        match fate(&id.uid, is_static, found.map(|pod| (pod.uid, stage(pod)))) {
            Fate::Kept => Verdict::Fine,
            Fate::Left => match found.and_then(grace_end).filter(|end| clock.now < *end) {
                Some(end) => Verdict::Later(end),
                None => Verdict::Fine,
            },
            Fate::Freed => {
                let is_gone = found.is_none_or(|pod| pod.uid != &*id.uid);
                // While its node answers, what a pod holds that has vanished is the node's to free.
                let runs_until = || self.pods.may_run_until(&id.uid, clock.now);
                match (is_gone && node_is_ready).then(runs_until).flatten() {
                    Some(end) => Verdict::Later(end),
                    None => Verdict::Free(cause(id, found, overdue)),
                }
            }
        }
    }

    /// Whether the endpoint lacks an address. Of several for one NIC and family it names one.
    fn lacks_endpoint(&self, id: &PodId) -> bool {
        let held = self.addresses.held(id);
        let endpoint = self.endpoints.of(id);
        held.iter().any(|one| {
            let same = held.iter().filter(|other| {
                other.interface == one.interface && Family::of_net(&other.net) == Family::of_net(&one.net)
            });
            let mut same = same.map(|other| (other.interface, other.net));
            !same.any(|(interface, net)| endpoint.is_some_and(|endpoint| endpoint.names(interface, net)))
        })
    }
}

/// Why what the pod holds is freed.
fn cause(id: &PodId, found: Option<Standing<'_>>, overdue: bool) -> Cause {
    match found {
        Some(pod) if pod.uid == &*id.uid && overdue => Cause::Overdue,
        Some(pod) if pod.uid == &*id.uid => Cause::Finished,
        _ => Cause::Gone,
    }
}

#[cfg(test)]
mod tests;
