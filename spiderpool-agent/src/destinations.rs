//! What pods must reach by their cluster NIC: the cluster's CIDRs and the node's addresses.

mod cluster_cidrs;

use std::net::IpAddr;

use tracing::info;

pub use cluster_cidrs::ClusterCidrs;

/// The destinations as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations {
    /// What SpiderCoordinator lists; `None` until one is Synced.
    pub cluster: Option<ClusterCidrs>,
    /// The node's own addresses; empty until they are listed.
    pub nodes: Vec<IpAddr>,
}

/// New destinations. What is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// What SpiderCoordinator lists now.
    pub cluster: Option<ClusterCidrs>,
    /// The node's own addresses now.
    pub nodes: Option<Vec<IpAddr>>,
}

impl Destinations {
    /// Whether the update changed anything.
    pub(crate) fn apply(&mut self, update: Update) -> bool {
        let mut changed = false;
        if let Some(cidrs) = update.cluster.filter(|cidrs| self.cluster.as_ref() != Some(cidrs)) {
            info!(service = ?cidrs.service, pod = ?cidrs.pod, hijack = ?cidrs.hijack, "cluster CIDRs changed");
            self.cluster = Some(cidrs);
            changed = true;
        }
        // A node without addresses is one whose addresses are not known.
        let nodes = update.nodes.filter(|addresses| !addresses.is_empty());
        if let Some(addresses) = nodes.filter(|addresses| self.nodes != *addresses) {
            info!(?addresses, "node addresses changed");
            self.nodes = addresses;
            changed = true;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_changes_what_it_names_and_says_whether_anything_changed() {
        let mut destinations = Destinations::default();
        let nodes = vec!["10.6.0.1".parse().unwrap()];
        let update = Update { cluster: None, nodes: Some(nodes.clone()) };
        assert!(destinations.apply(update.clone()));
        assert!(!destinations.apply(update));
        assert!(destinations.apply(Update { cluster: Some(ClusterCidrs::default()), nodes: None }));
        assert!(!destinations.apply(Update { cluster: None, nodes: Some(vec![]) }), "none is unknown");
        assert_eq!(destinations, Destinations { cluster: Some(ClusterCidrs::default()), nodes });
    }
}
