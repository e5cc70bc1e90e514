//! NetworkAttachmentDefinitions, as far as they are read here. Their CRD is Multus', and may not be there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;

use super::object_key::ObjectKey;

/// `apiVersion` and `kind`.
pub(super) const API_VERSION: &str = "k8s.cni.cncf.io/v1";
pub(super) const KIND: &str = "NetworkAttachmentDefinition";

/// A NetworkAttachmentDefinition as it is kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FoundAttachment {
    pub(super) key: ObjectKey,
    pub(super) uid: String,
    pub(super) version: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) owners: Vec<OwnerReference>,
    /// `spec.config`, whatever is in it.
    pub(super) config: Option<Value>,
    pub(super) is_terminating: bool,
}

impl From<DynamicObject> for FoundAttachment {
    fn from(object: DynamicObject) -> Self {
        let config = object.data.pointer("/spec/config").filter(|config| !config.is_null()).cloned();
        let meta = object.metadata;
        Self {
            key: ObjectKey {
                namespace: meta.namespace.unwrap_or_default(),
                name: meta.name.unwrap_or_default(),
            },
            uid: meta.uid.unwrap_or_default(),
            version: meta.resource_version,
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            owners: meta.owner_references.unwrap_or_default(),
            config,
            is_terminating: meta.deletion_timestamp.is_some(),
        }
    }
}

fn resource() -> ApiResource {
    let kind = GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", KIND);
    ApiResource::from_gvk_with_plural(&kind, "network-attachment-definitions")
}

/// Those of all namespaces.
pub(super) fn all(client: Client) -> Api<DynamicObject> {
    Api::all_with(client, &resource())
}

/// Those of one namespace.
pub(super) fn namespaced(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &resource())
}
