//! Creates, repairs and renames NetworkAttachmentDefinitions.

use std::time::Duration;

use kube::api::{ListParams, Patch, PostParams};
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

use super::attachment::FoundAttachment;
use super::events::MultusEvents;
use super::networks::{Attachments, Network, Networks};
use super::object_key::ObjectKey;
use super::plan::{Step, plan};
use super::problem::Problem;
use crate::network_attachment;
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
        let listed = match &network.listed {
            Attachments::Known => Ok(()),
            // The list comes, and with it every network.
            Attachments::Unknown => return Ok(()),
            Attachments::NotServed => Err(Problem::NoMultus),
            Attachments::Unreadable(error) => Err(Problem::NotListed(error.clone())),
        };
        let step = match listed.and_then(|()| plan(config, &desired, network.found.as_ref())) {
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
                if let Some(problem) = self.problem(name, &failure).await {
                    self.events.report(key, config, problem).await;
                }
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

    /// What a refusal means for the user. Not found is also an object that somebody has just deleted, of which the watch
    /// tells: nothing is wrong then.
    async fn problem(&self, name: ObjectKey, failure: &ApiFailure) -> Option<Problem> {
        if !failure.is_not_found() {
            return Some(Problem::Refused { name, error: failure.to_string() });
        }
        let list = network_attachment::all(self.kube.client());
        let parameters = ListParams::default().limit(1);
        match self.kube.read(list.list_metadata(&parameters)).await {
            Err(failure) if failure.is_not_found() => Some(Problem::NoMultus),
            _ => None,
        }
    }

    async fn execute(&self, key: &ObjectKey, step: Step) -> Result<(), ReconcileError> {
        let api = network_attachment::namespaced(self.kube.client(), &key.namespace);
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
        let api = network_attachment::namespaced(self.kube.client(), namespace);
        let object = Preconditions { name, uid: &former.uid, version: former.version.as_deref() };
        if self.kube.delete(&api, &object).await? == Deletion::Done {
            info!(namespace, name, "NetworkAttachmentDefinition of a former name deleted");
        }
        Ok(())
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
            ReconcileError::Api(failure)
                if failure.is_conflict() || failure.is_already_exists() || failure.is_not_found() =>
            {
                debug!(namespace, name, %error, ?pause, "the NetworkAttachmentDefinition has changed, reconciling again");
            }
            _ => {
                warn!(namespace, name, %error, ?pause, "NetworkAttachmentDefinition not written, trying again");
            }
        }
    }
}

#[cfg(test)]
mod tests;
