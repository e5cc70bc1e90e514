//! The Lease on the API server.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::ElectionConfig;
use super::election::{LeaseAction, ObservedLease, Timing};
use crate::kubernetes::{ApiFailure, Deletion, Kubernetes, Preconditions};

/// What became of a write.
pub(super) enum Written {
    /// The Lease is this candidate's.
    Done(ObservedLease),
    /// Another process has written or deleted it since it was read.
    Conflict,
}

/// Reads and writes the Lease.
pub(super) struct LeaseStore {
    kube: Kubernetes,
    api: Api<Lease>,
    config: ElectionConfig,
    /// As last read or written; `None` also after a write whose outcome is unknown.
    known: Option<Lease>,
}

impl LeaseStore {
    pub(super) fn new(kube: Kubernetes, config: ElectionConfig) -> Self {
        Self { api: Api::namespaced(kube.client(), &config.namespace), kube, config, known: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.config.lease
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    pub(super) async fn read(&mut self) -> Result<Option<ObservedLease>, ApiFailure> {
        self.known = self.kube.read(self.api.get_opt(&self.config.lease)).await?;
        Ok(self.known.as_ref().map(|lease| observed(lease, self.config.timing)))
    }

    /// Creates or replaces the Lease, on the condition that it is as it was last read.
    pub(super) async fn write(&mut self, action: LeaseAction) -> Result<Written, ApiFailure> {
        let (lease, parameters) = (self.desired(action), PostParams::default());
        let written = if action == LeaseAction::Create {
            self.kube.write_unthrottled(self.api.create(&parameters, &lease)).await
        } else {
            let name = &self.config.lease;
            self.kube.write_unthrottled(self.api.replace(name, &parameters, &lease)).await
        };
        match written {
            Ok(lease) => {
                let observed = observed(&lease, self.config.timing);
                self.known = Some(lease);
                Ok(Written::Done(observed))
            }
            Err(failure) if failure.is_conflict() || failure.is_already_exists() => Ok(Written::Conflict),
            // Where a create is answered so, the namespace does not exist.
            Err(failure) if failure.is_not_found() && action != LeaseAction::Create => Ok(Written::Conflict),
            Err(failure) => {
                self.known = None;
                Err(failure)
            }
        }
    }

    /// Deletes the Lease if it is as it was last read or written.
    pub(super) async fn delete(&mut self) -> Result<Deletion, ApiFailure> {
        match self.known.take() {
            Some(lease) => self.kube.delete(&self.api, &Preconditions::from_meta(&lease.metadata)).await,
            None => Ok(Deletion::Changed),
        }
    }

    fn desired(&self, action: LeaseAction) -> Lease {
        let mut lease = self.known.clone().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.config.lease.clone()), ..ObjectMeta::default() },
            ..Lease::default()
        });
        let now = MicroTime(Timestamp::now());
        let mut spec = lease.spec.take().unwrap_or_default();
        if action != LeaseAction::Renew {
            let transitions = spec.lease_transitions.unwrap_or_default();
            spec.lease_transitions = Some(transitions + i32::from(action == LeaseAction::Take));
            spec.acquire_time = Some(now.clone());
        }
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(self.config.timing.duration.as_secs() as i32),
            renew_time: Some(now),
            ..spec
        });
        lease
    }
}

fn observed(lease: &Lease, timing: Timing) -> ObservedLease {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
    ObservedLease {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        duration: seconds.map_or(timing.duration, Duration::from_secs),
    }
}
