//! Follows the Secret, serves what is in it, and, with the method `auto`, keeps a certificate in it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource as _};
use spiderpool_runtime::health::Condition;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes, publish_event};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::fault::CertificateFault;
use super::inspect::{Inspected, inspect};
use super::issue::{IssueError, issue};
use super::plan::{CertificatePlan, Prepared, plan_certificate};
use super::resolver::CertificateResolver;
use super::settings::CertificateSettings;
use super::{ca_bundle, secret};
use crate::config::CertificateMethod;
use crate::patch_parameters;

/// A certificate that nobody changes is judged again after this time: it may have expired.
const RECHECK: Duration = Duration::from_mins(1);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(2);

/// What a replica does for its certificate.
pub(crate) struct CertificateKeeper {
    pub(crate) kube: Kubernetes,
    pub(crate) settings: CertificateSettings,
    pub(crate) resolver: Arc<CertificateResolver>,
    pub(crate) usable: Condition,
    pub(crate) recorder: Recorder,
}

/// What is known between two looks at the Secret.
#[derive(Default)]
struct Memory {
    reported: Option<CertificateFault>,
    /// Until when the certificate in use is valid.
    served_until: Option<i64>,
    /// The CAs of which it is known since when the API server has been told of them.
    trusted: Option<(Vec<u8>, i64)>,
}

#[derive(Debug, Error)]
enum KeepError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(transparent)]
    Api(#[from] ApiFailure),
}

impl CertificateKeeper {
    /// Until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.settings.secret));
        let mut events = pin!(watcher(self.secrets(), config).default_backoff());
        let (mut latest, mut pending, mut listed, mut pause) = (None, None, false, RECHECK);
        let mut memory = Memory::default();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => Some(event),
                () = tokio::time::sleep(pause) => None,
            };
            match event {
                // Time has passed.
                None => {}
                Some(None) => return,
                Some(Some(Ok(watcher::Event::Init))) => {
                    pending = None;
                    continue;
                }
                Some(Some(Ok(watcher::Event::InitApply(secret)))) => {
                    pending = Some(secret);
                    continue;
                }
                Some(Some(Ok(watcher::Event::InitDone))) => (latest, listed) = (pending.take(), true),
                Some(Some(Ok(watcher::Event::Apply(secret)))) => latest = Some(secret),
                Some(Some(Ok(watcher::Event::Delete(_)))) => latest = None,
                Some(Some(Err(error))) => {
                    warn!(%error, "watch of the webhooks' certificate failed, trying again");
                    if !listed {
                        self.usable.unmet(format!("Secret {} cannot be read: {error}", self.settings.secret));
                    }
                    continue;
                }
            }
            if !listed {
                continue;
            }
            pause = match self.keep(latest.clone(), &mut memory).await {
                Ok(pause) => pause,
                Err(error) => {
                    // Another replica was faster, and the watch says so.
                    if matches!(&error, KeepError::Api(api) if api.is_conflict() || api.is_already_exists()) {
                        debug!(%error, "the webhooks' certificate was written by another replica");
                    } else {
                        warn!(%error, secret = self.settings.secret, "the webhooks' certificate cannot be written");
                    }
                    RETRY
                }
            };
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.kube.client(), &self.settings.namespace)
    }

    /// Serves what is in the Secret and does what is due; after which time it looks again.
    async fn keep(&self, latest: Option<Secret>, memory: &mut Memory) -> Result<Duration, KeepError> {
        let now = Timestamp::now().as_second();
        let names = self.settings.required_names();
        let look = |secret: &Secret, pair: &secret::Pair<'_>| {
            inspect(pair, secret::authorities(secret), &names, now)
        };
        let served = latest.as_ref().map(|secret| look(secret, &secret::served(secret)));
        self.serve(served.as_ref(), memory, now).await;
        if self.settings.method != CertificateMethod::Auto {
            return Ok(RECHECK);
        }
        let mut next = None;
        if let Some(secret) = &latest
            && let Some(pair) = secret::prepared(secret)
            && let Some(validity) = look(secret, &pair).usable()
        {
            next = Some(Prepared { validity, trusted_since: self.trusted_since(secret, memory, now).await? });
        }
        let plan = plan_certificate(now, served.and_then(|served| served.usable()), next);
        let secret = latest.unwrap_or_else(|| self.empty());
        match plan {
            CertificatePlan::Wait { until } => {
                let pause = Duration::from_secs(until.saturating_sub(now).max(0).unsigned_abs());
                return Ok(pause.clamp(Duration::from_millis(200), RECHECK));
            }
            CertificatePlan::Replace => {
                self.write(secret::replaced(secret, &issue(now, &self.settings)?, now)).await?;
            }
            CertificatePlan::Prepare => {
                self.write(secret::with_prepared(secret, &issue(now, &self.settings)?, now)).await?;
            }
            CertificatePlan::Promote => self.write(secret::promoted(secret)).await?,
        }
        info!(?plan, secret = self.settings.secret, "certificate of the webhooks written");
        Ok(RECHECK)
    }

    /// Takes over what can be served and says what is wrong.
    async fn serve(&self, served: Option<&Inspected>, memory: &mut Memory, now: i64) {
        if let Some(served) = served
            && let Some(key) = &served.key
        {
            self.resolver.set(Arc::clone(key));
            memory.served_until = served.usable().map(|validity| validity.not_after);
        }
        let fault = match served {
            Some(served) => served.fault.clone(),
            None => Some(CertificateFault::NoSecret),
        };
        let serves_on = served.is_none() && memory.served_until.is_some_and(|until| now < until);
        match &fault {
            Some(fault) if !serves_on => self.usable.unmet(self.describe(fault)),
            _ => self.usable.met(),
        }
        if fault != memory.reported {
            if let Some(fault) = &fault {
                self.report(fault).await;
            }
            memory.reported = fault;
        }
    }

    fn describe(&self, fault: &CertificateFault) -> String {
        let remedy = match self.settings.method {
            CertificateMethod::Auto => {
                "it is made anew; a Secret that is missing comes back with helm upgrade"
            }
            CertificateMethod::Provided => "correct spiderpoolController.tls.provided, then helm upgrade",
            CertificateMethod::CertManager => "see the Certificate of this name and the log of cert-manager",
        };
        let CertificateSettings { namespace, secret, .. } = &self.settings;
        format!("the webhooks' certificate in Secret {namespace}/{secret} cannot be used: {fault}: {remedy}")
    }

    /// In the log and as an Event. A new installation has an empty Secret, which is no news.
    async fn report(&self, fault: &CertificateFault) {
        let is_new = matches!(fault, CertificateFault::NoSecret | CertificateFault::Missing(_));
        if self.settings.method == CertificateMethod::Auto && is_new {
            return info!(secret = self.settings.secret, "no certificate of the webhooks yet");
        }
        let note = self.describe(fault);
        warn!(%note, "webhooks cannot be called");
        let event = Event {
            type_: EventType::Warning,
            reason: "InvalidCertificate".to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Serve".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &self.empty().object_ref(&())).await;
    }

    /// Since when the API server has been told of the Secret's CAs.
    async fn trusted_since(
        &self,
        secret: &Secret,
        memory: &mut Memory,
        now: i64,
    ) -> Result<Option<i64>, ApiFailure> {
        let authorities = secret::authorities(secret).unwrap_or_default();
        if !ca_bundle::is_told(&self.kube, &self.settings.service, authorities).await? {
            memory.trusted = None;
            return Ok(None);
        }
        if memory.trusted.as_ref().is_none_or(|(of, _)| of != authorities) {
            memory.trusted = Some((authorities.to_vec(), now));
        }
        Ok(memory.trusted.as_ref().map(|(_, since)| *since))
    }

    fn empty(&self) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.settings.secret.clone()),
                namespace: Some(self.settings.namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        }
    }

    /// Creates the Secret, or replaces exactly the one that was read.
    async fn write(&self, secret: Secret) -> Result<(), ApiFailure> {
        let parameters =
            PostParams { field_manager: patch_parameters().field_manager, ..PostParams::default() };
        let secrets = self.secrets();
        if secret.metadata.resource_version.is_none() {
            self.kube.write(secrets.create(&parameters, &secret)).await?;
        } else {
            self.kube.write(secrets.replace(&self.settings.secret, &parameters, &secret)).await?;
        }
        Ok(())
    }
}
