//! NetworkAttachmentDefinitions, as far as they are read here.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::DynamicObject;
use serde_json::Value;

use super::object_key::ObjectKey;
use crate::network_attachment::{MADE_AS, Marks, OWNER_LABEL};

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

impl FoundAttachment {
    /// By which we know whose it is.
    pub(super) fn marks(&self) -> Marks<'_> {
        Marks {
            name: &self.key.name,
            label: self.labels.get(OWNER_LABEL),
            made_as: self.annotations.get(MADE_AS),
            owners: &self.owners,
        }
    }
}
