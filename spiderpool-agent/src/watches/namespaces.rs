//! Labels of namespaces, and those of their annotations that choose pools.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Namespace;
use kube::core::{ObjectMeta, PartialObjectMeta};
use spiderpool_api::annotations::{NAMESPACE_IPV4_POOLS, NAMESPACE_IPV6_POOLS};

use super::Index;

/// What decides about the pools of a namespace's pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceMeta {
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotations that choose pools.
    pub annotations: BTreeMap<String, String>,
}

impl From<ObjectMeta> for NamespaceMeta {
    fn from(meta: ObjectMeta) -> Self {
        let mut annotations = meta.annotations.unwrap_or_default();
        annotations.retain(|key, _| [NAMESPACE_IPV4_POOLS, NAMESPACE_IPV6_POOLS].contains(&key.as_str()));
        Self { labels: meta.labels.unwrap_or_default(), annotations }
    }
}

/// Keys and values in a fraction of a map's memory: every agent keeps all namespaces.
#[derive(Debug)]
struct Pairs(Box<[(Box<str>, Box<str>)]>);

impl From<BTreeMap<String, String>> for Pairs {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(map.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl From<&Pairs> for BTreeMap<String, String> {
    fn from(Pairs(pairs): &Pairs) -> Self {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

/// A namespace as it is kept.
#[derive(Debug)]
pub struct WatchedNamespace {
    name: Box<str>,
    labels: Pairs,
    annotations: Pairs,
}

impl From<PartialObjectMeta<Namespace>> for WatchedNamespace {
    fn from(namespace: PartialObjectMeta<Namespace>) -> Self {
        let mut meta = namespace.metadata;
        let name = meta.name.take().unwrap_or_default().into();
        let NamespaceMeta { labels, annotations } = meta.into();
        Self { name, labels: labels.into(), annotations: annotations.into() }
    }
}

/// All namespaces.
#[derive(Debug, Default)]
pub struct NamespaceIndex(HashMap<Box<str>, WatchedNamespace>);

impl NamespaceIndex {
    /// The namespace, if the watch has seen it.
    pub fn get(&self, namespace: &str) -> Option<NamespaceMeta> {
        let WatchedNamespace { labels, annotations, .. } = self.0.get(namespace)?;
        Some(NamespaceMeta { labels: labels.into(), annotations: annotations.into() })
    }
}

impl Index<WatchedNamespace> for NamespaceIndex {
    fn apply(&mut self, namespace: WatchedNamespace) {
        self.0.insert(namespace.name.clone(), namespace);
    }

    fn delete(&mut self, namespace: &WatchedNamespace) {
        self.0.remove(&namespace.name);
    }

    fn reset(&mut self, namespaces: Vec<WatchedNamespace>) {
        self.0.clear();
        for namespace in namespaces {
            self.apply(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn namespace(metadata: &Value) -> WatchedNamespace {
        let object =
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
        serde_json::from_value::<PartialObjectMeta<Namespace>>(object).unwrap().into()
    }

    #[test]
    fn labels_and_the_annotations_that_choose_pools_are_kept_and_one_without_is_known() {
        let mut index = NamespaceIndex::default();
        let shop = json!({
            "name": "shop", "labels": {"team": "a"}, "annotations": {NAMESPACE_IPV4_POOLS: "[]", "other": "x"},
        });
        index.reset(vec![namespace(&shop), namespace(&json!({"name": "plain"}))]);
        let map = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        let expected =
            NamespaceMeta { labels: map("team", "a"), annotations: map(NAMESPACE_IPV4_POOLS, "[]") };
        assert_eq!(index.get("shop"), Some(expected));
        assert_eq!(index.get("plain"), Some(NamespaceMeta::default()));
        assert_eq!(index.get("new"), None);
        index.delete(&namespace(&json!({"name": "shop"})));
        assert_eq!(index.get("shop"), None);
    }
}
