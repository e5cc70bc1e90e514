//! The pods of this node.

use std::collections::HashMap;
use std::sync::Arc;

use spiderpool_api::pod::{Pod, PodObject};

use super::Index;

/// Pods by namespace and name.
#[derive(Debug, Default)]
pub struct PodIndex(HashMap<(String, String), Arc<Pod>>);

impl PodIndex {
    /// The pod of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.0.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }
}

impl Index<PodObject> for PodIndex {
    fn apply(&mut self, pod: PodObject) {
        let pod = Pod::from(pod);
        self.0.insert((pod.namespace.clone(), pod.name.clone()), Arc::new(pod));
    }

    fn delete(&mut self, pod: &PodObject) {
        let meta = &pod.metadata;
        let key = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        self.0.remove(&key);
    }

    fn reset(&mut self, pods: Vec<PodObject>) {
        self.0.clear();
        for pod in pods {
            self.apply(pod);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reset_forgets_what_the_list_lacks() {
        let mut index = PodIndex::default();
        let named = |name: &str, uid: &str| -> PodObject {
            serde_json::from_value(json!({"metadata": {"namespace": "n", "name": name, "uid": uid}})).unwrap()
        };
        index.apply(named("a", "1"));
        index.apply(named("b", "2"));
        index.reset(vec![named("b", "3")]);
        assert_eq!(index.get("n", "a"), None);
        assert_eq!(index.get("n", "b").unwrap().uid, "3");
        index.delete(&named("b", "3"));
        assert_eq!(index.get("n", "b"), None);
    }
}
