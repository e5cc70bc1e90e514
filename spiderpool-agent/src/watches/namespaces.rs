//! Annotations of namespaces, as far as they choose pools.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use spiderpool_api::annotations::{NAMESPACE_IPV4_POOLS, NAMESPACE_IPV6_POOLS};

use super::Index;

/// Namespaces that carry such an annotation.
#[derive(Debug, Default)]
pub struct NamespaceIndex(HashMap<String, BTreeMap<String, String>>);

impl NamespaceIndex {
    /// The annotations of a namespace that choose pools.
    pub fn annotations(&self, namespace: &str) -> BTreeMap<String, String> {
        self.0.get(namespace).cloned().unwrap_or_default()
    }
}

impl Index<PartialObjectMeta<Namespace>> for NamespaceIndex {
    fn apply(&mut self, namespace: PartialObjectMeta<Namespace>) {
        let name = namespace.metadata.name.unwrap_or_default();
        let mut annotations = namespace.metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| [NAMESPACE_IPV4_POOLS, NAMESPACE_IPV6_POOLS].contains(&key.as_str()));
        if annotations.is_empty() {
            self.0.remove(&name);
        } else {
            self.0.insert(name, annotations);
        }
    }

    fn delete(&mut self, namespace: &PartialObjectMeta<Namespace>) {
        self.0.remove(namespace.metadata.name.as_deref().unwrap_or_default());
    }

    fn reset(&mut self, namespaces: Vec<PartialObjectMeta<Namespace>>) {
        self.0.clear();
        for namespace in namespaces {
            self.apply(namespace);
        }
    }
}
