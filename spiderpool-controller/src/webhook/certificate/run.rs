//! Follows the Secret, serves what is in it, and, with the method `auto`, keeps a certificate in it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use spiderpool_runtime::health::Condition;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::leader::Role;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::fault::CertificateFault;
use super::inspect::{Inspected, inspect, issuing_authority};
use super::issue::{IssueError, Issued, issue};
use super::plan::{CertificatePlan, Decider, Prepared, plan_certificate};
use super::report::CertificateReport;
use super::resolver::CertificateResolver;
use super::settings::CertificateSettings;
use super::{configurations, secret};
use crate::config::CertificateMethod;
use crate::patch_parameters;

/// A certificate that nobody changes is judged again after this time: it may have expired.
const RECHECK: Duration = Duration::from_mins(1);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Between two certificates that a replica makes, whatever happens to them.
const ISSUE_PAUSE: i64 = 5;
/// Seconds for which the former certificate of others is served on, until the API server is told of the CA of the new one.
const CHANGE_LIMIT: i64 = 60;

/// What a replica does for its certificate.
pub(crate) struct CertificateKeeper {
    pub(crate) kube: Kubernetes,
    pub(crate) settings: CertificateSettings,
    pub(crate) resolver: Arc<CertificateResolver>,
    pub(crate) usable: Condition,
    pub(crate) report: CertificateReport,
    pub(crate) role: watch::Receiver<Role>,
}

/// What is known between two looks at the Secret.
#[derive(Default)]
struct Memory {
    reported: Option<CertificateFault>,
    served: Option<Served>,
    /// Since when a certificate of others waits until it is served.
    waiting_since: Option<i64>,
    /// The CAs of which it is known since when the API server has been told of them.
    trusted: Option<(Vec<u8>, i64)>,
    issued: Option<i64>,
    /// Why no certificate could be made.
    failed: Option<String>,
}

/// A certificate in use that the API server takes.
struct Served {
    until: i64,
    authorities: Vec<u8>,
}

#[derive(Debug, Error)]
enum KeepError {
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("the certificate that was made cannot be used: {0}")]
    Unusable(CertificateFault),
    #[error("a certificate was made a moment ago")]
    TooSoon,
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
        let mut role = self.role.clone();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => Some(event),
                () = tokio::time::sleep(pause) => None,
                Ok(()) = role.changed() => None,
            };
            match event {
                // Time has passed, or this replica leads now.
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
            if listed {
                pause = match self.keep(latest.clone(), &mut memory).await {
                    Ok(pause) => pause,
                    Err(error) => self.failed(&error, &mut memory),
                };
            }
        }
    }

    /// Says what has failed, once if it will fail again; after which time it is tried again.
    fn failed(&self, error: &KeepError, memory: &mut Memory) -> Duration {
        let secret = &self.settings.secret;
        match error {
            KeepError::TooSoon => {}
            // Another replica was faster, and the watch says so.
            KeepError::Api(api) if api.is_conflict() => {
                debug!(%error, "the webhooks' certificate was written by another replica");
            }
            KeepError::Api(error) => warn!(%error, secret, "the webhooks' certificate cannot be written"),
            KeepError::Issue(_) | KeepError::Unusable(_) => {
                let text = error.to_string();
                if memory.failed.as_ref() != Some(&text) {
                    warn!(%error, "no certificate for the webhooks can be made");
                    self.usable.unmet(text.clone());
                    memory.failed = Some(text);
                }
                return RECHECK;
            }
        }
        RETRY
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.kube.client(), &self.settings.namespace)
    }

    /// Serves what is in the Secret and does what is due; after which time it looks again.
    async fn keep(&self, latest: Option<Secret>, memory: &mut Memory) -> Result<Duration, KeepError> {
        let now = Timestamp::now().as_second();
        let (name, names) = (self.settings.service_name(), self.settings.names());
        let look =
            |secret: &Secret, pair: &secret::Pair<'_>| inspect(pair, secret::authorities(secret), &name, now);
        let served = latest.as_ref().map(|secret| look(secret, &secret::served(secret)));
        let authorities = latest.as_ref().and_then(secret::authorities).unwrap_or_default();
        if self.settings.method != CertificateMethod::Auto
            && self.waits_for_trust(served.as_ref(), authorities, memory, now).await
        {
            return Ok(RETRY);
        }
        self.serve(served.as_ref(), authorities, memory, now).await;
        let Some(secret) = latest.filter(|_| self.settings.method == CertificateMethod::Auto) else {
            return Ok(RECHECK);
        };
        let mut next = None;
        if let Some(pair) = secret::prepared(&secret)
            && let Some(usable) = look(&secret, &pair).usable(&names)
        {
            next = Some(Prepared { usable, trusted_since: self.trusted_since(&secret, memory, now).await? });
        }
        let decider = if *self.role.borrow() == Role::Leader { Decider::Leader } else { Decider::Follower };
        let plan = plan_certificate(now, decider, served.and_then(|served| served.usable(&names)), next);
        let written = match plan {
            CertificatePlan::Wait { until } => {
                let pause = Duration::from_secs(until.saturating_sub(now).max(0).unsigned_abs());
                return Ok(pause.clamp(Duration::from_millis(200), RECHECK));
            }
            CertificatePlan::Replace => secret::replaced(secret, &self.issue(memory, now)?, now),
            CertificatePlan::Prepare => {
                let pair = secret::served(&secret);
                let serving = issuing_authority(&pair, secret::authorities(&secret), &name, now);
                secret::with_prepared(secret, &self.issue(memory, now)?, serving.as_ref())
            }
            CertificatePlan::Promote => secret::promoted(secret),
        };
        self.write(&written).await?;
        info!(?plan, secret = self.settings.secret, "certificate of the webhooks written");
        Ok(RECHECK)
    }

    /// Makes a certificate that is known to be of use.
    fn issue(&self, memory: &mut Memory, now: i64) -> Result<Issued, KeepError> {
        if memory.issued.is_some_and(|before| (before..before + ISSUE_PAUSE).contains(&now)) {
            return Err(KeepError::TooSoon);
        }
        memory.issued = Some(now);
        let issued = issue(now, &self.settings)?;
        let secret = secret::replaced(Secret::default(), &issued, now);
        let (pair, authorities) = (secret::served(&secret), secret::authorities(&secret));
        if let Some(fault) = inspect(&pair, authorities, &self.settings.service_name(), now).fault {
            return Err(KeepError::Unusable(fault));
        }
        memory.failed = None;
        Ok(issued)
    }

    /// Whether a certificate of others is served later: the API server has not been told of its CA, and takes the one that is
    /// served until then.
    async fn waits_for_trust(
        &self,
        new: Option<&Inspected>,
        authorities: &[u8],
        memory: &mut Memory,
        now: i64,
    ) -> bool {
        let is_changed = new.is_some_and(|new| new.fault.is_none())
            && memory
                .served
                .as_ref()
                .is_some_and(|served| now < served.until && served.authorities != authorities);
        let since = *memory.waiting_since.get_or_insert(now);
        if is_changed
            && now < since.saturating_add(CHANGE_LIMIT)
            && !configurations::is_told(&self.kube, &self.settings.service, authorities)
                .await
                .unwrap_or(false)
        {
            return true;
        }
        memory.waiting_since = None;
        false
    }

    /// Takes over what can be served and says what is wrong.
    async fn serve(&self, new: Option<&Inspected>, authorities: &[u8], memory: &mut Memory, now: i64) {
        let had = memory.served.is_some();
        if let Some(new) = new
            && let Some(key) = &new.key
        {
            self.resolver.set(Arc::clone(key));
            let until = new.validity.filter(|_| new.fault.is_none()).map(|validity| validity.not_after);
            memory.served = until.map(|until| Served { until, authorities: authorities.to_vec() });
        }
        let fault = match new {
            Some(new) => new.fault.clone(),
            None => Some(CertificateFault::NoSecret),
        };
        let serves_on = new.is_none() && memory.served.as_ref().is_some_and(|served| now < served.until);
        match &fault {
            Some(fault) if !serves_on => self.usable.unmet(self.settings.describe(fault)),
            _ => self.usable.met(),
        }
        if fault != memory.reported {
            // A new installation has an empty Secret, which is no news.
            let is_new = self.settings.method == CertificateMethod::Auto && !had;
            match &fault {
                Some(CertificateFault::Missing(_)) if is_new => {
                    info!(secret = self.settings.secret, "no certificate of the webhooks yet");
                }
                Some(fault) => self.report.publish(&self.settings, fault).await,
                None => {}
            }
            memory.reported = fault;
        }
    }

    /// Since when the API server has been told of the Secret's CAs.
    async fn trusted_since(
        &self,
        secret: &Secret,
        memory: &mut Memory,
        now: i64,
    ) -> Result<Option<i64>, ApiFailure> {
        let authorities = secret::authorities(secret).unwrap_or_default();
        if !configurations::is_told(&self.kube, &self.settings.service, authorities).await? {
            memory.trusted = None;
            return Ok(None);
        }
        if memory.trusted.as_ref().is_none_or(|(of, _)| of != authorities) {
            memory.trusted = Some((authorities.to_vec(), now));
        }
        Ok(memory.trusted.as_ref().map(|(_, since)| *since))
    }

    /// Replaces exactly the Secret that was read. It is not created: who may create Secrets may read all of them.
    async fn write(&self, secret: &Secret) -> Result<(), ApiFailure> {
        let parameters =
            PostParams { field_manager: patch_parameters().field_manager, ..PostParams::default() };
        let secrets = self.secrets();
        self.kube.write(secrets.replace(&self.settings.secret, &parameters, secret)).await?;
        Ok(())
    }
}
