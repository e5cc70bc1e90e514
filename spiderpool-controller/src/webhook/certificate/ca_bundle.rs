//! Whom the API server trusts when it calls the webhooks: `caBundle` in both configurations is `ca.crt` of the Secret.
//! The leader writes it, also after somebody has taken it away.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::Patch;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::authorities::valid_authorities;
use super::secret;
use super::settings::CertificateSettings;
use crate::patch_parameters;

/// After a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// When nothing was reported.
const RECHECK: Duration = Duration::from_mins(5);

/// The leader's part of the certificate.
pub(crate) struct CaBundleKeeper {
    pub(crate) kube: Kubernetes,
    pub(crate) settings: CertificateSettings,
}

impl CaBundleKeeper {
    /// Until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let client = self.kube.client();
        let secrets = Api::<Secret>::namespaced(client.clone(), &self.settings.namespace);
        let [mutating, validating] =
            kinds().map(|kind| Api::<DynamicObject>::all_with(client.clone(), &kind));
        let name = self.settings.service.as_str();
        let changes = [
            changes(secrets, &self.settings.secret).boxed(),
            changes(mutating, name).boxed(),
            changes(validating, name).boxed(),
        ];
        let mut changes = pin!(futures::stream::select_all(changes));
        let mut pause = RETRY;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = changes.next() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = RECHECK;
            if let Err(error) = self.repair().await {
                warn!(%error, "the CA of the webhooks' certificate cannot be written to their configurations");
                pause = RETRY;
            }
        }
    }

    async fn repair(&self) -> Result<(), ApiFailure> {
        let secrets = Api::<Secret>::namespaced(self.kube.client(), &self.settings.namespace);
        let Some(secret) = self.kube.read(secrets.get_opt(&self.settings.secret)).await? else {
            return Ok(());
        };
        // The API server takes nothing else; what is wrong is said where it is served.
        let authorities = secret::authorities(&secret).unwrap_or_default();
        if valid_authorities(authorities, i64::MIN, 1).is_empty() {
            return Ok(());
        }
        for kind in kinds() {
            let api = Api::<DynamicObject>::all_with(self.kube.client(), &kind);
            let name = &self.settings.service;
            let Some(found) = self.kube.read(api.get_opt(name)).await? else { continue };
            let operations = plan_ca_bundle(&found, authorities);
            if operations.is_empty() {
                continue;
            }
            let patch: json_patch::Patch = match serde_json::from_value(Value::Array(operations)) {
                Ok(patch) => patch,
                Err(error) => {
                    warn!(%error, "no patch of the webhooks' configuration");
                    continue;
                }
            };
            self.kube.write(api.patch(name, &patch_parameters(), &Patch::<()>::Json(patch))).await?;
            info!(kind = kind.kind, name, "the API server is told of the CA of the webhooks' certificate");
        }
        Ok(())
    }
}

/// Whether both configurations, as far as there are any, have exactly these CAs.
pub(super) async fn is_told(kube: &Kubernetes, name: &str, authorities: &[u8]) -> Result<bool, ApiFailure> {
    for kind in kinds() {
        let api = Api::<DynamicObject>::all_with(kube.client(), &kind);
        let found = kube.read(api.get_opt(name)).await?;
        if found.is_some_and(|found| !plan_ca_bundle(&found, authorities).is_empty()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn kinds() -> [ApiResource; 2] {
    [
        ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        ApiResource::erase::<ValidatingWebhookConfiguration>(&()),
    ]
}

/// A JSON patch for the webhooks that have another `caBundle`, if nobody has changed their order since.
fn plan_ca_bundle(configuration: &DynamicObject, authorities: &[u8]) -> Vec<Value> {
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

/// Something for each change of the object, and for each list.
fn changes<K>(api: Api<K>, name: &str) -> impl Stream<Item = ()> + Send + use<K>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    watcher(api, config).default_backoff().filter_map(async |event| match event {
        Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
        Ok(_) => Some(()),
        Err(error) => {
            warn!(%error, "watch for the CA of the webhooks' certificate failed, trying again");
            None
        }
    })
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
