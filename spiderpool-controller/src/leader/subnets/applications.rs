//! Workloads that want pools of subnets.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use spiderpool_api::workload::{SubnetApplication, WorkloadKind, WorkloadObject};
use spiderpool_core::names::PoolName;
use spiderpool_runtime::watch::{Index, Shared};

/// A workload reduced to its name and what it wants, if anything.
#[derive(Debug)]
pub(super) struct SlimWorkload {
    key: (String, String),
    wants: Option<SubnetApplication>,
}

impl SlimWorkload {
    pub(super) fn new(kind: WorkloadKind, object: &WorkloadObject) -> Self {
        let meta = &object.metadata;
        let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        // One that is being deleted still has pods: its pools go when it is gone.
        Self { key, wants: kind.application(object) }
    }
}

/// Those of one kind.
#[derive(Debug, Default)]
pub(super) struct Applications {
    by_name: HashMap<(String, String), Arc<SubnetApplication>>,
    changed: BTreeSet<PoolName>,
}

/// Those of all kinds, each fed by a watch.
pub(super) type AllApplications = Arc<[Shared<Applications>; WorkloadKind::ALL.len()]>;

impl Applications {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<SubnetApplication>> {
        self.by_name.values()
    }

    /// Takes the subnets of which something else is wanted than before.
    pub(super) fn take_changed(&mut self) -> BTreeSet<PoolName> {
        std::mem::take(&mut self.changed)
    }

    fn mark(&mut self, application: &SubnetApplication) {
        self.changed.extend(application.subnets());
    }
}

impl Index<SlimWorkload> for Applications {
    fn apply(&mut self, workload: SlimWorkload) {
        let after = workload.wants.map(Arc::new);
        let before = match &after {
            Some(after) => self.by_name.insert(workload.key, Arc::clone(after)),
            None => self.by_name.remove(&workload.key),
        };
        // Most updates are of a status.
        if before != after {
            for application in before.iter().chain(&after) {
                self.mark(application);
            }
        }
    }

    fn delete(&mut self, workload: &SlimWorkload) {
        if let Some(before) = self.by_name.remove(&workload.key) {
            self.mark(&before);
        }
    }

    fn reset(&mut self, workloads: Vec<SlimWorkload>) {
        let before = std::mem::take(&mut self.by_name);
        for application in before.values() {
            self.mark(application);
        }
        for workload in workloads {
            self.apply(workload);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workload(name: &str, subnet: Option<&str>, replicas: i32) -> SlimWorkload {
        let annotations =
            subnet.map(|name| json!({"ipam.spidernet.io/subnet": json!({"ipv4": [name]}).to_string()}));
        let object = json!({
            "metadata": {"name": name, "namespace": "ns1", "uid": "u"},
            "spec": {"replicas": replicas, "template": {"metadata": {"annotations": annotations}}},
        });
        SlimWorkload::new(WorkloadKind::Deployment, &serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_change_concerns_the_subnets_before_and_after_it() {
        let mut index = Applications::default();
        let mut changed = |change: &dyn Fn(&mut Applications)| {
            change(&mut index);
            index.take_changed().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(changed(&|index| index.apply(workload("a", None, 1))), [""; 0]);
        assert_eq!(changed(&|index| index.apply(workload("a", Some("s1"), 1))), ["s1"]);
        assert_eq!(changed(&|index| index.apply(workload("a", Some("s1"), 1))), [""; 0]);
        assert_eq!(changed(&|index| index.apply(workload("a", Some("s1"), 2))), ["s1"]);
        assert_eq!(changed(&|index| index.apply(workload("a", Some("s2"), 2))), ["s1", "s2"]);
        assert_eq!(changed(&|index| index.reset(vec![workload("b", Some("s3"), 2)])), ["s2", "s3"]);
        assert_eq!(changed(&|index| index.delete(&workload("b", None, 2))), ["s3"]);
    }
}
