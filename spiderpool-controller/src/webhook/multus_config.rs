//! SpiderMultusConfig: upstream's defaults; everything that is wrong with the network, and the name of its
//! NetworkAttachmentDefinition, if another object has it.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::core::ObjectMeta;
use serde::Deserialize as _;
use serde_json::Value;
use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_core::admission::network::{NameHolder, name_taken_fault};
use spiderpool_core::coordinator::SettingsError;
use spiderpool_core::multus::{MultusFields, validate, validate_update};
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::watch::Shared;
use tokio::sync::Semaphore;
use tracing::debug;

use super::known::KnownObjects;
use super::response::Verdict;
use crate::network_attachment::{self, Marks, Ownership};

/// How long the look for a NetworkAttachmentDefinition may take. Without an answer the network is admitted: the leader
/// leaves an object of somebody else alone and says so in an Event.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// Looks at a time: whoever reaches the port may have us look.
const LOOKS: usize = 4;

/// Fills in what is absent.
pub(super) fn mutate(object: &mut Value) {
    let Ok(network) = SpiderMultusConfig::deserialize(&*object) else { return };
    let Ok(before) = serde_json::to_value(&network) else { return };
    let mut network = network;
    network.fill_in_defaults();
    let Ok(after) = serde_json::to_value(&network) else { return };
    take_over(object, &before, &after);
}

/// Takes what differs between `before` and `after` over into `object`, and leaves what neither knows.
fn take_over(object: &mut Value, before: &Value, after: &Value) {
    let (Some(target), Some(old), Some(new)) =
        (object.as_object_mut(), before.as_object(), after.as_object())
    else {
        *object = after.clone();
        return;
    };
    for gone in old.keys().filter(|key| !new.contains_key(*key)) {
        target.remove(gone);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => take_over(target.entry(key).or_insert(Value::Null), before, value),
            None => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What the decision about a network needs.
pub(super) struct NetworkValidator {
    kube: Kubernetes,
    known: Shared<KnownObjects>,
    looks: Semaphore,
}

impl NetworkValidator {
    pub(super) fn new(kube: Kubernetes, known: Shared<KnownObjects>) -> Self {
        Self { kube, known, looks: Semaphore::new(LOOKS) }
    }

    /// All faults of a new network, or of one that replaces `old`.
    pub(super) async fn validate(
        &self,
        new: &SpiderMultusConfig,
        old: Option<&SpiderMultusConfig>,
    ) -> Verdict {
        if new.metadata.deletion_timestamp.is_some() {
            return Verdict::default();
        }
        let (fields, before) = (MultusFields::from(new), old.map(MultusFields::from));
        let mut faults = match &before {
            Some(before) => validate_update(before, &fields),
            None => validate(&fields),
        };
        // An object that has its name keeps it.
        if before.is_none_or(|before| before.attachment_name() != fields.attachment_name())
            && let Some(holder) = self.name_holder(new, fields.attachment_name()).await
        {
            faults.push(name_taken_fault(&fields, &new.namespace().unwrap_or_default(), &holder));
        }
        Verdict { faults, warnings: warnings(&fields) }
    }

    async fn name_holder(&self, network: &SpiderMultusConfig, attachment: &str) -> Option<NameHolder> {
        let (namespace, name) = (network.namespace().unwrap_or_default(), network.name_any());
        let other = self.known.read(|known| known.network_of(&namespace, attachment, &name));
        if let Some(other) = other {
            return Some(NameHolder::Config(other));
        }
        let api = network_attachment::namespaced(self.kube.client(), &namespace);
        let found = async {
            // The semaphore is never closed.
            let _place = self.looks.acquire().await;
            self.kube.read(api.get_metadata_opt(attachment)).await
        };
        match tokio::time::timeout(LOOK_LIMIT, found).await {
            Ok(Ok(found)) => {
                found.filter(|found| !is_of(&found.metadata, network)).map(|_| NameHolder::Foreign)
            }
            Ok(Err(error)) => {
                debug!(%error, attachment, "NetworkAttachmentDefinition not looked for");
                None
            }
            Err(_) => None,
        }
    }
}

/// What the network cannot decide: the dataplane is the cluster's, or the node's.
fn warnings(fields: &MultusFields<'_>) -> Vec<String> {
    let settings = fields.coordinator.filter(|_| fields.enable_coordinator);
    let is_strict = settings.is_some_and(|settings| settings.pod_rp_filter == Some(1));
    let warning = || {
        format!("Pods with this network do not start with dataplane ebpf: {}", SettingsError::StrictRpFilter)
    };
    is_strict.then(warning).into_iter().collect()
}

/// Whether the leader would write to it for this network, or waits until it is gone.
fn is_of(found: &ObjectMeta, network: &SpiderMultusConfig) -> bool {
    !matches!(Marks::of(found).ownership(network), Ownership::Others(_))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_api::crd::GROUP;

    use super::*;
    use crate::network_attachment::{MADE_AS, OWNER_LABEL};

    #[test]
    fn what_is_absent_is_filled_in_and_what_is_unknown_stays() {
        let mut object = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
            "metadata": {"namespace": "ns", "name": "n", "annotations": {"cni.spidernet.io/rdma-resource-inject": "a"}},
            "spec": {"cniType": "macvlan", "later": {"a": null}, "macvlan": {"master": ["eth1"], "later": 1}},
        });
        mutate(&mut object);
        assert_eq!(
            object["spec"],
            json!({
                "cniType": "macvlan", "later": {"a": null},
                "macvlan": {"master": ["eth1"], "later": 1, "vlanID": 0, "rdmaResourceName": ""},
            })
        );
        assert_eq!(object["metadata"]["labels"], json!({"cni.spidernet.io/rdma-resource-inject": "a"}));
        let once = object.clone();
        mutate(&mut object);
        assert_eq!(object, once);
    }

    #[test]
    fn a_custom_network_has_no_coordinator() {
        let mut object = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig",
            "metadata": {"namespace": "ns", "name": "n"},
            "spec": {"cniType": "custom", "enableCoordinator": true, "coordinator": {"mode": "overlay"}},
        });
        mutate(&mut object);
        assert_eq!(object["spec"], json!({"cniType": "custom", "enableCoordinator": false, "customCNI": ""}));
    }

    /// The cluster's dataplane may be policy.
    #[test]
    fn a_strict_filter_is_warned_about() {
        let of = |coordinator: Value| {
            let network = json!({
                "metadata": {"namespace": "ns", "name": "n"},
                "spec": {"cniType": "macvlan", "macvlan": {"master": ["eth1"]}, "coordinator": coordinator},
            });
            let network: SpiderMultusConfig = serde_json::from_value(network).unwrap();
            let fields = MultusFields::from(&network);
            (validate(&fields).len(), warnings(&fields))
        };
        let (faults, warnings) = of(json!({"podRPFilter": 1}));
        assert!(
            faults == 0 && warnings.len() == 1 && warnings[0].contains("podRPFilter 1 is strict"),
            "{warnings:?}"
        );
        assert_eq!(of(json!({"podRPFilter": 2})), (0, vec![]));
    }

    #[test]
    fn an_attachment_of_a_network_of_this_name_is_no_conflict() {
        let network = json!({"metadata": {"namespace": "ns", "name": "n"}, "spec": {}});
        let network: SpiderMultusConfig = serde_json::from_value(network).unwrap();
        let of = |kind: &str, name: &str| {
            let owner = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "name": name, "uid": "u", "controller": true});
            let meta: ObjectMeta = serde_json::from_value(json!({"ownerReferences": [owner]})).unwrap();
            is_of(&meta, &network)
        };
        assert!(of("SpiderMultusConfig", "n"));
        assert!(!of("SpiderMultusConfig", "other") && !of("Helm", "n"));
        assert!(!is_of(&ObjectMeta::default(), &network));
    }

    #[test]
    fn an_attachment_that_a_backup_brought_back_without_its_owner_is_no_conflict() {
        let network = json!({"metadata": {"namespace": "ns", "name": "n"}, "spec": {}});
        let network: SpiderMultusConfig = serde_json::from_value(network).unwrap();
        let is_of = |found: Value| is_of(&serde_json::from_value(found).unwrap(), &network);
        let labels = json!({OWNER_LABEL: "the uid before"});
        assert!(is_of(json!({"name": "n", "labels": labels, "annotations": {MADE_AS: "n"}})));
        assert!(!is_of(json!({"name": "n", "labels": labels, "annotations": {MADE_AS: "other"}})), "a copy");
        assert!(!is_of(json!({"name": "n", "labels": labels})));
        assert!(!is_of(json!({"name": "n", "annotations": {MADE_AS: "n"}})));
        let other =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "u", "controller": true}]);
        let owned =
            json!({"name": "n", "labels": labels, "annotations": {MADE_AS: "n"}, "ownerReferences": other});
        assert!(!is_of(owned));
    }
}
