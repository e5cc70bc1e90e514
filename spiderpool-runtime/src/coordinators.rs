//! SpiderCoordinators: how this cluster's pods are wired up.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use spiderpool_api::crd::{SpiderCoordinator, SpiderCoordinatorStatus};

use crate::watch::Index;

/// The one that counts where several exist.
const DEFAULT: &str = "default";

/// SpiderCoordinators by name.
#[derive(Debug, Default)]
pub struct CoordinatorIndex(BTreeMap<String, Arc<SpiderCoordinator>>);

impl CoordinatorIndex {
    /// The one named `default`, else the first by name.
    pub fn chosen(&self) -> Option<Arc<SpiderCoordinator>> {
        self.0.get(DEFAULT).or_else(|| self.0.values().next()).cloned()
    }

    /// The Service CIDRs as far as they are known.
    pub fn service_cidrs(&self) -> Vec<IpNet> {
        self.cidrs(|status| &status.service_cidr)
    }

    /// The CIDRs of overlay pods as far as they are known.
    pub fn pod_cidrs(&self) -> Vec<IpNet> {
        self.cidrs(|status| &status.overlay_pod_cidr)
    }

    fn cidrs(&self, of: fn(&SpiderCoordinatorStatus) -> &Vec<String>) -> Vec<IpNet> {
        let chosen = self.chosen();
        let status = chosen.as_ref().and_then(|coordinator| coordinator.status.as_ref());
        status.into_iter().flat_map(of).filter_map(|cidr| cidr.parse().ok()).collect()
    }
}

impl Index<SpiderCoordinator> for CoordinatorIndex {
    fn apply(&mut self, coordinator: SpiderCoordinator) {
        self.0.insert(name(&coordinator), Arc::new(coordinator));
    }

    fn delete(&mut self, coordinator: &SpiderCoordinator) {
        self.0.remove(&name(coordinator));
    }

    fn reset(&mut self, coordinators: Vec<SpiderCoordinator>) {
        self.0.clear();
        for coordinator in coordinators {
            self.apply(coordinator);
        }
    }
}

fn name(coordinator: &SpiderCoordinator) -> String {
    coordinator.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use spiderpool_api::crd::CoordinatorSpec;

    use super::*;

    #[test]
    fn default_comes_first_then_the_name() {
        let named = |name: &str| SpiderCoordinator::new(name, CoordinatorSpec::default());
        let mut index = CoordinatorIndex::default();
        assert!(index.chosen().is_none());
        index.apply(named("b"));
        index.apply(named("a"));
        assert_eq!(name(&index.chosen().unwrap()), "a");
        index.apply(named(DEFAULT));
        assert_eq!(name(&index.chosen().unwrap()), DEFAULT);
        index.delete(&named(DEFAULT));
        index.reset(vec![named("c")]);
        assert_eq!(name(&index.chosen().unwrap()), "c");
    }
}
