//! SpiderMultusConfigs and NetworkAttachmentDefinitions as the watches have them, and which networks to look at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_core::multus::MultusFields;
use spiderpool_runtime::watch::Index;

use super::attachment::FoundAttachment;
use super::object_key::ObjectKey;
use super::plan::belongs_to;

/// Whether NetworkAttachmentDefinitions are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Attachments {
    /// Not listed yet: nothing is decided.
    #[default]
    Unknown,
    /// The API server has no such kind.
    NotServed,
    /// They are not listed yet, and why.
    Unreadable(String),
    /// Listed.
    Known,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Networks {
    configs: BTreeMap<ObjectKey, Arc<SpiderMultusConfig>>,
    attachments: BTreeMap<ObjectKey, FoundAttachment>,
    listed: Attachments,
    /// Of what was made, something may have changed.
    changed: BTreeSet<ObjectKey>,
}

/// What is known of one network.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) config: Arc<SpiderMultusConfig>,
    pub(super) listed: Attachments,
    /// The NetworkAttachmentDefinition of its name.
    pub(super) found: Option<FoundAttachment>,
    /// What we have made of it under other names.
    pub(super) former: Vec<FoundAttachment>,
}

impl Networks {
    /// `None` if there is no such SpiderMultusConfig.
    pub(super) fn network(&self, key: &ObjectKey) -> Option<Network> {
        let config = Arc::clone(self.configs.get(key)?);
        let name = MultusFields::from(&*config).attachment_name().to_owned();
        let of_namespace = self.attachments.values().filter(|found| found.key.namespace == key.namespace);
        let former = of_namespace.filter(|found| {
            found.key.name != name && belongs_to(found, &config) && found.marks().are_of_its_name()
        });
        let former = former.cloned().collect();
        let found = self.attachments.get(&ObjectKey { namespace: key.namespace.clone(), name }).cloned();
        Some(Network { config, listed: self.listed.clone(), found, former })
    }

    /// Takes the networks to look at again.
    pub(super) fn take_changed(&mut self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut self.changed)
    }

    /// The API server has no NetworkAttachmentDefinitions.
    pub(super) fn set_not_served(&mut self) {
        self.attachments.clear();
        self.listed = Attachments::NotServed;
        self.mark_all();
    }

    /// They cannot be listed, for this reason.
    pub(super) fn set_unreadable(&mut self, error: String) {
        let now = Attachments::Unreadable(error);
        if self.listed != now {
            self.listed = now;
            self.mark_all();
        }
    }

    fn mark_all(&mut self) {
        self.changed.extend(self.configs.keys().cloned());
    }

    /// Those that want this name, and the one that it belongs to.
    fn mark_networks_of(&mut self, found: &FoundAttachment) {
        let concerned = self.configs.iter().filter(|(key, config)| {
            key.namespace == found.key.namespace
                && (MultusFields::from(&***config).attachment_name() == found.key.name
                    || belongs_to(found, config))
        });
        self.changed.extend(concerned.map(|(key, _)| key.clone()));
    }
}

impl Index<SpiderMultusConfig> for Networks {
    fn apply(&mut self, object: SpiderMultusConfig) {
        let key = ObjectKey::of(&object);
        self.changed.insert(key.clone());
        self.configs.insert(key, Arc::new(object));
    }

    fn delete(&mut self, object: &SpiderMultusConfig) {
        let key = ObjectKey::of(object);
        self.configs.remove(&key);
        self.changed.insert(key);
    }

    fn reset(&mut self, objects: Vec<SpiderMultusConfig>) {
        // Also those that are gone.
        self.mark_all();
        let objects = objects.into_iter().map(|object| (ObjectKey::of(&object), Arc::new(object)));
        self.configs = objects.collect();
        self.mark_all();
    }
}

impl Index<FoundAttachment> for Networks {
    fn apply(&mut self, object: FoundAttachment) {
        self.mark_networks_of(&object);
        // Before this change it may have been another's.
        if let Some(before) = self.attachments.insert(object.key.clone(), object) {
            self.mark_networks_of(&before);
        }
    }

    fn delete(&mut self, object: &FoundAttachment) {
        self.attachments.remove(&object.key);
        self.mark_networks_of(object);
    }

    fn reset(&mut self, objects: Vec<FoundAttachment>) {
        self.attachments = objects.into_iter().map(|object| (object.key.clone(), object)).collect();
        self.listed = Attachments::Known;
        self.mark_all();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(name: &str, cr_name: Option<&str>) -> SpiderMultusConfig {
        let annotations = cr_name.map(|name| json!({ "multus.spidernet.io/cr-name": name }));
        let meta = json!({ "namespace": "ns", "name": name, "uid": format!("uid-{name}"), "annotations": annotations });
        serde_json::from_value(json!({ "metadata": meta, "spec": {} })).unwrap()
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey { namespace: "ns".into(), name: name.into() }
    }

    fn found(name: &str, of: &str) -> FoundAttachment {
        let labels = [(crate::network_attachment::OWNER_LABEL.to_owned(), format!("uid-{of}"))].into();
        let annotations = [("multus.spidernet.io/made-as".to_owned(), name.to_owned())].into();
        FoundAttachment { key: key(name), labels, annotations, ..FoundAttachment::default() }
    }

    #[test]
    fn a_change_concerns_who_wants_the_name_and_whose_it_is() {
        let mut networks = Networks::default();
        networks.reset(vec![config("a", None), config("b", Some("a")), config("c", None)]);
        let changed = networks.take_changed();
        assert_eq!(changed.len(), 3);
        networks.apply(found("a", "c"));
        assert_eq!(networks.take_changed(), [key("a"), key("b"), key("c")].into());
        networks.delete(&found("c", "x"));
        assert_eq!(networks.take_changed(), [key("c")].into());
        networks.reset(Vec::<FoundAttachment>::new());
        assert_eq!(networks.take_changed().len(), 3);
        Index::<SpiderMultusConfig>::delete(&mut networks, &config("a", None));
        assert_eq!(networks.take_changed(), [key("a")].into());
        assert!(networks.network(&key("a")).is_none());
    }

    #[test]
    fn what_was_made_under_another_name_is_former_and_a_copy_of_it_is_not() {
        let mut networks = Networks::default();
        networks.apply(config("a", Some("new")));
        networks.apply(found("old", "a"));
        networks.apply(found("new", "a"));
        networks.apply(found("other", "b"));
        // As `kubectl get -o yaml` and `kubectl apply` under another name make it.
        networks.apply(FoundAttachment { key: key("copy"), ..found("new", "a") });
        let network = networks.network(&key("a")).unwrap();
        assert_eq!(network.found.unwrap().key, key("new"));
        let former: Vec<_> = network.former.into_iter().map(|found| found.key.name).collect();
        assert_eq!((former, network.listed), (vec!["old".to_owned()], Attachments::Unknown));
    }
}
