//! What to do about the NetworkAttachmentDefinition of one network. Without I/O.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use serde_json::{Map, Value, json};
use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_core::multus::Attachment;

use super::attachment::FoundAttachment;
use super::problem::Problem;
use crate::network_attachment::{API_VERSION, KIND, MADE_AS, OWNER_LABEL, Ownership};

/// Which annotations are copies of the SpiderMultusConfig's: those that it loses go, and others' stay.
const COPIED: &str = "multus.spidernet.io/copied-annotations";
/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It is as it should be.
    Nothing,
    /// It is being deleted, and its name is free after that.
    AwaitDeletion,
    /// Create this object.
    Create(Value),
    /// Merge this into the object of this UID and version.
    Patch(Value),
}

/// Compares what there is with what should be.
pub(super) fn plan(
    config: &SpiderMultusConfig,
    desired: &Attachment,
    found: Option<&FoundAttachment>,
) -> Result<Step, Problem> {
    let Some(found) = found else { return Ok(Step::Create(object(config, desired))) };
    match found.marks().ownership(config) {
        _ if found.is_terminating => Ok(Step::AwaitDeletion),
        Ownership::Predecessors => Ok(Step::AwaitDeletion),
        Ownership::Others(owner) => Err(Problem::NameTaken { name: found.key.clone(), owner }),
        Ownership::Ours | Ownership::Restored => Ok(patch(config, desired, found)),
    }
}

/// Whether we have made it of this object.
pub(super) fn belongs_to(found: &FoundAttachment, config: &SpiderMultusConfig) -> bool {
    found.marks().ownership(config) == Ownership::Ours
}

fn owner_reference(config: &SpiderMultusConfig) -> OwnerReference {
    OwnerReference {
        api_version: SpiderMultusConfig::api_version(&()).into_owned(),
        kind: SpiderMultusConfig::kind(&()).into_owned(),
        name: config.metadata.name.clone().unwrap_or_default(),
        uid: config.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn labels(config: &SpiderMultusConfig) -> BTreeMap<String, String> {
    [(OWNER_LABEL.to_owned(), config.metadata.uid.clone().unwrap_or_default())].into()
}

/// With the list of what is copied, and the name.
fn annotations(desired: &Attachment) -> BTreeMap<String, String> {
    let mut annotations = desired.annotations.clone();
    for own in [COPIED, MADE_AS] {
        annotations.remove(own);
    }
    if !annotations.is_empty() {
        let keys: Vec<_> = annotations.keys().map(String::as_str).collect();
        let keys = keys.join(",");
        annotations.insert(COPIED.to_owned(), keys);
    }
    annotations.insert(MADE_AS.to_owned(), desired.name.clone());
    annotations
}

fn object(config: &SpiderMultusConfig, desired: &Attachment) -> Value {
    let spec = desired.config.as_ref().map_or_else(|| json!({}), |config| json!({ "config": config }));
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": desired.name,
            "namespace": config.metadata.namespace,
            "labels": labels(config),
            "annotations": annotations(desired),
            "ownerReferences": [owner_reference(config)],
        },
        "spec": spec,
    })
}

/// A merge patch of what differs: what others have written beside it stays.
fn patch(config: &SpiderMultusConfig, desired: &Attachment, found: &FoundAttachment) -> Step {
    let mut meta = Map::new();
    let wanted = annotations(desired);
    let mut changed = differing(&wanted, &found.annotations);
    for key in copied(found).filter(|key| !wanted.contains_key(*key) && found.annotations.contains_key(*key))
    {
        changed.insert(key.to_owned(), Value::Null);
    }
    for (member, changed) in [("annotations", changed), ("labels", differing(&labels(config), &found.labels))]
    {
        if !changed.is_empty() {
            meta.insert(member.to_owned(), changed.into());
        }
    }
    let owner = owner_reference(config);
    if !found.owners.contains(&owner) {
        let others = found.owners.iter().filter(|one| one.uid != owner.uid);
        meta.insert("ownerReferences".to_owned(), json!(others.chain([&owner]).collect::<Vec<_>>()));
    }
    let differs = found.config != desired.config.clone().map(Value::String);
    if meta.is_empty() && !differs {
        return Step::Nothing;
    }
    meta.insert("uid".to_owned(), json!(found.uid));
    meta.insert("resourceVersion".to_owned(), json!(found.version));
    let mut patch = json!({ "metadata": meta });
    if differs {
        patch["spec"] = json!({ "config": desired.config });
    }
    Step::Patch(patch)
}

/// What we have copied before. The list itself goes with the last of them.
fn copied(found: &FoundAttachment) -> impl Iterator<Item = &str> {
    let list = found.annotations.get(COPIED).map(|list| list.split(',')).into_iter().flatten();
    list.chain([COPIED]).collect::<BTreeSet<_>>().into_iter()
}

fn differing(wanted: &BTreeMap<String, String>, found: &BTreeMap<String, String>) -> Map<String, Value> {
    let differing = wanted.iter().filter(|(key, value)| found.get(*key) != Some(value));
    differing.map(|(key, value)| (key.clone(), json!(value))).collect()
}

#[cfg(test)]
mod tests;
