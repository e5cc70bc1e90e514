//! NetworkAttachmentDefinitions: where they are, and whose one is. The leader writes them, and the webhook of
//! SpiderMultusConfig asks whether a name is free. Their CRD is Multus', and may not be there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta};
use kube::{Api, Client, Resource as _};
use spiderpool_api::crd::{GROUP, SpiderMultusConfig};

/// `apiVersion` and `kind`.
pub(crate) const API_VERSION: &str = "k8s.cni.cncf.io/v1";
pub(crate) const KIND: &str = "NetworkAttachmentDefinition";

/// On what we have made: the UID of the SpiderMultusConfig. The owner reference says the same, and may be lost.
pub(crate) const OWNER_LABEL: &str = "multus.spidernet.io/config-uid";
/// The name under which we have made it: what a user makes from a copy of its YAML has our owner and label, too, and
/// another name than this.
pub(crate) const MADE_AS: &str = "multus.spidernet.io/made-as";

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", KIND);
    ApiResource::from_gvk_with_plural(&kind, "network-attachment-definitions")
}

/// Those of all namespaces.
pub(crate) fn all(client: Client) -> Api<DynamicObject> {
    Api::all_with(client, &resource())
}

/// Those of one namespace.
pub(crate) fn namespaced(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource())
}

/// Whose an object is, seen from a SpiderMultusConfig that wants its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ownership {
    Ours,
    /// Made under its name by an object that is gone, and brought back without its owner: a backup has labels and
    /// annotations, and other UIDs.
    Restored,
    /// Of an object of our name that is gone: the garbage collector removes it.
    Predecessors,
    /// Who has it.
    Others(String),
}

/// What an object says of who has made it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks<'a> {
    pub(crate) name: &'a str,
    pub(crate) label: Option<&'a String>,
    pub(crate) made_as: Option<&'a String>,
    pub(crate) owners: &'a [OwnerReference],
}

impl<'a> Marks<'a> {
    pub(crate) fn of(meta: &'a ObjectMeta) -> Self {
        fn value<'a>(map: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a String> {
            map.and_then(|map| map.get(key))
        }
        Self {
            name: meta.name.as_deref().unwrap_or_default(),
            label: value(meta.labels.as_ref(), OWNER_LABEL),
            made_as: value(meta.annotations.as_ref(), MADE_AS),
            owners: meta.owner_references.as_deref().unwrap_or_default(),
        }
    }

    /// Whether we have made it under this name. A copy is not ours to delete.
    pub(crate) fn are_of_its_name(self) -> bool {
        self.made_as.is_some_and(|made_as| made_as == self.name)
    }

    /// Whose the object is, for a SpiderMultusConfig of the same namespace.
    pub(crate) fn ownership(self, config: &SpiderMultusConfig) -> Ownership {
        let (name, uid) = (config.metadata.name.as_deref(), config.metadata.uid.as_deref());
        let Some(owner) = self.owners.iter().find(|owner| owner.controller == Some(true)) else {
            return match self.label {
                Some(label) if Some(label.as_str()) == uid => Ownership::Ours,
                Some(_) if self.are_of_its_name() => Ownership::Restored,
                _ => Ownership::Others("no SpiderMultusConfig".to_owned()),
            };
        };
        match (Some(owner.uid.as_str()) == uid, Some(owner.name.as_str()) == name) {
            _ if !is_config(owner) => Ownership::Others(format!("{} {}", owner.kind, owner.name)),
            (true, _) => Ownership::Ours,
            (false, true) => Ownership::Predecessors,
            (false, false) => {
                let namespace = config.metadata.namespace.as_deref().unwrap_or_default();
                Ownership::Others(format!("{} {namespace}/{}", owner.kind, owner.name))
            }
        }
    }
}

fn is_config(owner: &OwnerReference) -> bool {
    owner.kind == SpiderMultusConfig::kind(&()) && owner.api_version.split('/').next() == Some(GROUP)
}
