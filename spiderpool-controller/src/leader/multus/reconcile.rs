//! Creates, repairs and renames NetworkAttachmentDefinitions.

use std::time::Duration;

use kube::api::{Patch, PostParams};
use kube::core::DynamicObject;
use kube::runtime::events::Recorder;
use serde_json::Value;
use spiderpool_core::multus::{MultusFields, plan_attachment};
use spiderpool_runtime::kubernetes::{ApiFailure, Deletion, Kubernetes, Preconditions};
use spiderpool_runtime::watch::Shared;
use spiderpool_runtime::work_queue::{Action, Reconciler};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::attachment::{self, FoundAttachment};
use super::events::MultusEvents;
use super::networks::{Attachments, Network, Networks};
use super::object_key::ObjectKey;
use super::plan::{Step, plan};
use super::problem::Problem;
use crate::patch_parameters;

/// Reconciles SpiderMultusConfigs.
pub(super) struct MultusReconciler {
    kube: Kubernetes,
    networks: Shared<Networks>,
    events: MultusEvents,
}

/// Why an attempt has failed.
#[derive(Debug, Error)]
pub(super) enum ReconcileError {
    /// A request was not successful.
    #[error(transparent)]
    Api(#[from] ApiFailure),
    /// Our own object is none for the API server.
    #[error("NetworkAttachmentDefinition: {0}")]
    Object(#[from] serde_json::Error),
}

impl MultusReconciler {
    pub(super) fn new(kube: Kubernetes, networks: Shared<Networks>, recorder: Recorder) -> Self {
        Self { kube, networks, events: MultusEvents::new(recorder) }
    }

    async fn reconcile_network(&self, key: &ObjectKey, network: &Network) -> Result<(), ReconcileError> {
        let config = &network.config;
        let desired = match plan_attachment(&MultusFields::from(&**config)) {
            Ok(desired) => desired,
            Err(faults) => {
                self.events.report(key, config, Problem::Invalid(faults)).await;
                return Ok(());
            }
        };
        match network.listed {
            Attachments::Known => {}
            // The list comes, and with it every network.
            Attachments::Unknown => return Ok(()),
            Attachments::NotServed => {
                self.events.report(key, config, Problem::NoMultus).await;
                return Ok(());
            }
        }
        let step = match plan(config, &desired, network.found.as_ref()) {
            Ok(step) => step,
            Err(problem) => {
                self.events.report(key, config, problem).await;
                return Ok(());
            }
        };
        let name = ObjectKey { namespace: key.namespace.clone(), name: desired.name };
        match self.execute(&name, step).await {
            Err(ReconcileError::Api(failure @ ApiFailure::Refused(_)))
                if !(failure.is_conflict() || failure.is_already_exists()) =>
            {
                let problem = problem(name, &failure);
                self.events.report(key, config, problem).await;
                return Err(failure.into());
            }
            other => other?,
        }
        for former in &network.former {
            self.delete(former).await?;
        }
        self.events.forget(key);
        Ok(())
    }

    async fn execute(&self, key: &ObjectKey, step: Step) -> Result<(), ReconcileError> {
        let api = attachment::namespaced(self.kube.client(), &key.namespace);
        let (namespace, name) = (&key.namespace, &key.name);
        match step {
            Step::Nothing => {}
            Step::AwaitDeletion => {
                debug!(
                    namespace,
                    name, "NetworkAttachmentDefinition is being deleted, it is made again after that"
                );
            }
            Step::Create(object) => {
                let object: DynamicObject = serde_json::from_value(object)?;
                let field_manager = patch_parameters().field_manager;
                let parameters = PostParams { field_manager, ..PostParams::default() };
                self.kube.write(api.create(&parameters, &object)).await?;
                info!(namespace, name, "NetworkAttachmentDefinition created");
            }
            Step::Patch(patch) => {
                let patch: Patch<Value> = Patch::Merge(patch);
                self.kube.write(api.patch(name, &patch_parameters(), &patch)).await?;
                info!(namespace, name, "NetworkAttachmentDefinition written as it should be");
            }
        }
        Ok(())
    }

    /// What was made under another name.
    async fn delete(&self, former: &FoundAttachment) -> Result<(), ReconcileError> {
        if former.is_terminating {
            return Ok(());
        }
        let (namespace, name) = (&former.key.namespace, &former.key.name);
        let api = attachment::namespaced(self.kube.client(), namespace);
        let object = Preconditions { name, uid: &former.uid, version: former.version.as_deref() };
        if self.kube.delete(&api, &object).await? == Deletion::Done {
            info!(namespace, name, "NetworkAttachmentDefinition of a former name deleted");
        }
        Ok(())
    }
}

/// What a refusal means for the user. A kind that is not there is not found.
fn problem(name: ObjectKey, failure: &ApiFailure) -> Problem {
    if failure.is_not_found() {
        Problem::NoMultus
    } else {
        Problem::Refused { name, error: failure.to_string() }
    }
}

impl Reconciler<ObjectKey> for MultusReconciler {
    type Error = ReconcileError;

    async fn reconcile(&self, key: &ObjectKey, _since: Instant) -> Result<Action, ReconcileError> {
        let network = self.networks.read(|networks| networks.network(key));
        match network.filter(|network| network.config.metadata.deletion_timestamp.is_none()) {
            Some(network) => self.reconcile_network(key, &network).await?,
            None => self.events.forget(key),
        }
        Ok(Action::await_change())
    }

    fn failed(&self, key: &ObjectKey, error: &ReconcileError, pause: Duration) {
        let (namespace, name) = (&key.namespace, &key.name);
        match error {
            ReconcileError::Api(failure) if failure.is_conflict() || failure.is_already_exists() => {
                debug!(namespace, name, %error, ?pause, "the NetworkAttachmentDefinition has changed, reconciling again");
            }
            _ => {
                warn!(namespace, name, %error, ?pause, "NetworkAttachmentDefinition not written, trying again");
            }
        }
    }
}
