//! What agents say of nodes that are not ready: which of their pods run.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use spiderpool_api::node_lease;
use spiderpool_core::names::{NodeName, PodUid};

/// A Lease as it is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlimLease {
    /// `None` if it is no Lease of an agent.
    node: Option<NodeName>,
    /// By the clock of its node: only whether it has changed counts.
    renewed: Option<Timestamp>,
    running: HashSet<PodUid>,
}

impl From<Lease> for SlimLease {
    fn from(lease: Lease) -> Self {
        Self {
            node: node_lease::node(&lease),
            running: node_lease::running_pods(&lease).collect(),
            renewed: lease.spec.and_then(|spec| spec.renew_time).map(|time| time.0),
        }
    }
}

/// What is kept of a Lease.
#[derive(Debug, Clone)]
struct KnownLease {
    lease: SlimLease,
    /// When it was seen renewed, by this process.
    heard_at: Instant,
}

/// Leases by node.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeLeaseIndex(HashMap<NodeName, KnownLease>);

impl NodeLeaseIndex {
    /// Until when the pod is said to run, if it is.
    pub(crate) fn runs_until(&self, node: &NodeName, pod: &PodUid) -> Option<Instant> {
        let known = self.0.get(node).filter(|known| known.lease.running.contains(pod))?;
        Some(known.heard_at + node_lease::DURATION)
    }

    /// Adds or replaces a Lease.
    pub(crate) fn insert(&mut self, lease: SlimLease) {
        let Some(node) = lease.node.clone() else { return };
        if self.0.get(&node).is_none_or(|known| known.lease != lease) {
            self.0.insert(node, KnownLease { lease, heard_at: Instant::now() });
        }
    }

    /// Removes a Lease: the node is ready again, or gone. Answers the node if its Lease was known.
    pub(super) fn remove(&mut self, lease: &SlimLease) -> Option<NodeName> {
        let node = lease.node.as_ref()?;
        self.0.remove(node).map(|_| node.clone())
    }

    /// Only these Leases exist.
    pub(super) fn reset(&mut self, leases: Vec<SlimLease>) {
        let listed: HashSet<_> = leases.iter().filter_map(|lease| lease.node.clone()).collect();
        self.0.retain(|node, _| listed.contains(node));
        for lease in leases {
            self.insert(lease);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::leader::state) fn lease(second: i64, running: &[&str]) -> SlimLease {
        SlimLease {
            node: Some("n1".parse().unwrap()),
            renewed: Timestamp::from_second(second).ok(),
            running: running.iter().map(|uid| uid.parse().unwrap()).collect(),
        }
    }

    /// Clocks of two machines do not compare, and another list is no news.
    #[test]
    fn a_lease_counts_from_when_it_was_seen_renewed() {
        let (node, uid) = ("n1".parse().unwrap(), "u".parse().unwrap());
        let mut index = NodeLeaseIndex::default();
        let before = Instant::now();
        index.insert(lease(1, &["u"]));
        let until = index.runs_until(&node, &uid).unwrap();
        assert!(until >= before + node_lease::DURATION);
        index.reset(vec![lease(1, &["u"])]);
        assert_eq!(index.runs_until(&node, &uid), Some(until));
        index.insert(lease(-9, &["u"]));
        assert!(index.runs_until(&node, &uid) > Some(until));
        index.insert(lease(-8, &["other"]));
        assert_eq!(index.runs_until(&node, &uid), None);
        index.reset(vec![]);
        assert_eq!(index.runs_until(&node, &"other".parse().unwrap()), None);
    }
}
