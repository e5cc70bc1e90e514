//! The webhooks' configurations: whom the API server trusts when it calls.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Api;
use kube::core::{ApiResource, DynamicObject};
use serde_json::{Value, json};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};

/// Both kinds.
pub(super) fn kinds() -> [ApiResource; 2] {
    [
        ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
    ]
}

/// The one of this kind, if there is any.
pub(super) async fn read(
    kube: &Kubernetes,
    kind: &ApiResource,
    name: &str,
) -> Result<Option<DynamicObject>, ApiFailure> {
    let api = Api::<DynamicObject>::all_with(kube.client(), kind);
    kube.read(api.get_opt(name)).await
}

/// Whether both configurations, as far as there are any, have exactly these CAs.
pub(super) async fn is_told(kube: &Kubernetes, name: &str, authorities: &[u8]) -> Result<bool, ApiFailure> {
    for kind in kinds() {
        let found = read(kube, &kind, name).await?;
        if found.is_some_and(|found| !plan_ca_bundle(&found, authorities).is_empty()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A JSON patch for the webhooks that have another `caBundle`, if nobody has changed their order since.
pub(super) fn plan_ca_bundle(configuration: &DynamicObject, authorities: &[u8]) -> Vec<Value> {
    let bundle = json!(ByteString(authorities.to_vec()));
    let webhooks = configuration.data.get("webhooks").and_then(Value::as_array);
    let wrong = webhooks.into_iter().flatten().enumerate();
    let wrong = wrong.filter(|(_, webhook)| webhook["clientConfig"]["caBundle"] != bundle);
    wrong
        .flat_map(|(index, webhook)| {
            let path = format!("/webhooks/{index}");
            [
                json!({"op": "test", "path": format!("{path}/name"), "value": webhook["name"]}),
                json!({"op": "add", "path": format!("{path}/clientConfig/caBundle"), "value": bundle}),
            ]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_that_trust_others_are_patched() {
        let configuration: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "c"},
            "webhooks": [
                {"name": "a", "clientConfig": {"caBundle": "UEVN"}},
                {"name": "b", "clientConfig": {"service": {"name": "c"}}},
            ],
        }))
        .unwrap();
        assert_eq!(
            Value::Array(plan_ca_bundle(&configuration, b"PEM")),
            json!([
                {"op": "test", "path": "/webhooks/1/name", "value": "b"},
                {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "UEVN"},
            ])
        );
        assert_eq!(plan_ca_bundle(&configuration, b"other").len(), 4);
    }
}
