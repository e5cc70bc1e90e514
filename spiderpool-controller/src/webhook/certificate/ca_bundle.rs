//! Whom the API server trusts when it calls the webhooks: `caBundle` in both configurations is `ca.crt` of the Secret.
//! With the method `auto` the leader writes it, also after somebody has taken it away; with the others the chart or
//! cert-manager does, and the leader says what is wrong.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::Patch;
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::watcher::{self, watcher};
use serde::de::DeserializeOwned;
use serde_json::Value;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes, publish_event};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::authorities::valid_authorities;
use super::configurations::{kinds, plan_ca_bundle, read};
use super::findings::{Finding, Findings};
use super::secret;
use super::settings::CertificateSettings;
use crate::config::CertificateMethod;
use crate::patch_parameters;

/// After a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// When nothing was reported.
const RECHECK: Duration = Duration::from_mins(5);

/// The leader's part of the certificate.
pub(crate) struct CaBundleKeeper {
    pub(crate) kube: Kubernetes,
    pub(crate) settings: CertificateSettings,
    pub(crate) recorder: Recorder,
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
        let mut findings = [Findings::default(), Findings::default()];
        let mut pause = RETRY;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = changes.next() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = match self.repair(&mut findings).await {
                Ok(()) => findings.iter().filter_map(Findings::next_look).min().unwrap_or(RECHECK),
                Err(error) => {
                    warn!(%error, "the CA of the webhooks' certificate cannot be compared with their configurations");
                    RETRY
                }
            };
        }
    }

    async fn repair(&self, findings: &mut [Findings; 2]) -> Result<(), ApiFailure> {
        let secrets = Api::<Secret>::namespaced(self.kube.client(), &self.settings.namespace);
        let secret = self.kube.read(secrets.get_opt(&self.settings.secret)).await?;
        // The API server takes nothing else; what is wrong is said where it is served.
        let authorities = secret.as_ref().and_then(secret::authorities).unwrap_or_default();
        let authorities =
            Some(authorities).filter(|authorities| !valid_authorities(authorities, i64::MIN, 1).is_empty());
        for (kind, findings) in kinds().into_iter().zip(findings) {
            let found = self.repair_one(&kind, authorities).await?;
            if let Some(finding) = findings.observe(found, Instant::now()) {
                self.report(&kind, finding).await;
            }
        }
        Ok(())
    }

    async fn repair_one(
        &self,
        kind: &ApiResource,
        authorities: Option<&[u8]>,
    ) -> Result<Option<Finding>, ApiFailure> {
        let name = &self.settings.service;
        let Some(found) = read(&self.kube, kind, name).await? else { return Ok(Some(Finding::Missing)) };
        let operations = authorities.map(|authorities| plan_ca_bundle(&found, authorities));
        let Some(operations) = operations.filter(|operations| !operations.is_empty()) else {
            return Ok(None);
        };
        if self.settings.method != CertificateMethod::Auto {
            return Ok(Some(Finding::OtherAuthority));
        }
        let patch: json_patch::Patch = match serde_json::from_value(Value::Array(operations)) {
            Ok(patch) => patch,
            Err(error) => {
                warn!(%error, "no patch of the webhooks' configuration");
                return Ok(None);
            }
        };
        let api = Api::<DynamicObject>::all_with(self.kube.client(), kind);
        self.kube.write(api.patch(name, &patch_parameters(), &Patch::<()>::Json(patch))).await?;
        info!(kind = kind.kind, name, "the API server is told of the CA of the webhooks' certificate");
        Ok(None)
    }

    /// In the log and as an Event on the Secret, which is in the controllers' namespace.
    async fn report(&self, kind: &ApiResource, finding: Finding) {
        let note = format!("{} {}: {finding}", kind.kind, self.settings.service);
        warn!(%note, "webhooks are not called");
        let event = Event {
            type_: EventType::Warning,
            reason: finding.reason(&kind.kind),
            note: Some(note),
            action: "Serve".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &self.settings.secret_reference()).await;
    }
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
