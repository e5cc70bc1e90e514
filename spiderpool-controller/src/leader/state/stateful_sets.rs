//! StatefulSets: whether a pod that has ended is followed by another one of its name.

use std::collections::HashMap;

use spiderpool_api::stateful_set::{StatefulSetObject, scale};
use spiderpool_core::ipam::{Owner, StatefulSetScale, Successor};

/// A StatefulSet as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlimStatefulSet {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) scale: StatefulSetScale,
}

impl From<StatefulSetObject> for SlimStatefulSet {
    fn from(set: StatefulSetObject) -> Self {
        let scale = scale(&set);
        let (namespace, name) = (set.metadata.namespace, set.metadata.name);
        Self { namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default(), scale }
    }
}

/// All StatefulSets; none where their pods do not keep addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatefulSetIndex(HashMap<String, HashMap<String, StatefulSetScale>>);

impl StatefulSetIndex {
    /// Whether another pod of the pod's name will come.
    pub(crate) fn successor(&self, owner: &Owner) -> Successor {
        let name = &owner.pod.name;
        let found = owner.stateful_set().and_then(|set| Some((set, self.0.get(name.namespace())?.get(set)?)));
        match found {
            Some((set, scale)) if scale.has_pod(set, name.name()) => Successor::Expected,
            _ => Successor::None,
        }
    }

    /// Adds or replaces one; whether it says something else of its pods than before.
    pub(super) fn insert(&mut self, set: &SlimStatefulSet) -> bool {
        let of_namespace = self.0.entry(set.namespace.clone()).or_default();
        of_namespace.insert(set.name.clone(), set.scale) != Some(set.scale)
    }

    /// Removes one.
    pub(super) fn remove(&mut self, set: &SlimStatefulSet) {
        if let Some(of_namespace) = self.0.get_mut(&set.namespace) {
            of_namespace.remove(&set.name);
            if of_namespace.is_empty() {
                self.0.remove(&set.namespace);
            }
        }
    }

    /// Only these exist.
    pub(super) fn reset(&mut self, sets: &[SlimStatefulSet]) {
        self.0.clear();
        for set in sets {
            self.insert(set);
        }
    }
}
