//! Server-side apply that keeps what others have set since.

use std::time::Instant;

use backon::Retryable as _;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::{DynamicObject, Status};
use serde::Deserialize as _;
use serde_json::Value;
use spiderpool_core::coordinator::{Settings, SettingsError};
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use thiserror::Error;
use tracing::{info, warn};

use super::manifests::Manifest;

/// The owner of the fields that the values set.
pub(super) const MANAGER: &str = "spiderpool-init";
/// Rounds of conflicts: each removes fields.
const MAX_ROUNDS: usize = 5;

/// Why an object is not applied.
#[derive(Debug, Error)]
pub(super) enum ApplyError {
    /// The API server refuses it.
    #[error("{object} is refused: {source}")]
    Refused {
        /// Kind and name.
        object: String,
        /// Why.
        source: ApiFailure,
    },
    /// Time is over.
    #[error(
        "{object} could not be applied in time, the deadline (SPIDERPOOL_INIT_DEADLINE) is over: {source}"
    )]
    Deadline {
        /// Kind and name.
        object: String,
        /// The last failure.
        source: ApiFailure,
    },
}

/// A field that somebody else has set.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Conflict {
    /// `.spec.mode`
    field: String,
    /// Who has set it.
    manager: String,
}

/// Applies objects until a deadline.
pub(super) struct Applier {
    kube: Kubernetes,
    deadline: Instant,
}

impl Applier {
    /// By this connection.
    pub(super) fn new(kube: Kubernetes, deadline: Instant) -> Self {
        Self { kube, deadline }
    }

    /// Applies one object; a field that was changed by hand since stays as it is.
    pub(super) async fn apply(&self, manifest: &Manifest) -> Result<(), ApplyError> {
        // A kind that is not there yet is 404.
        let is_temporary = |failure: &ApiFailure| failure.is_retryable() || failure.is_not_found();
        let attempt = || self.attempt(manifest);
        let applied =
            attempt.retry(backoff::until(self.deadline)).when(is_temporary).notify(|error, pause| {
                let reason = if error.to_string().contains("failed calling webhook") {
                    "object not applied yet: no controller serves the webhooks, trying again"
                } else {
                    "object not applied yet, trying again"
                };
                warn!(object = %manifest, %error, ?pause, "{reason}");
            });
        applied.await.map_err(|source| {
            let object = manifest.to_string();
            if is_temporary(&source) {
                ApplyError::Deadline { object, source }
            } else {
                ApplyError::Refused { object, source }
            }
        })
    }

    async fn attempt(&self, manifest: &Manifest) -> Result<(), ApiFailure> {
        let api = Api::<DynamicObject>::all_with(self.kube.client(), &manifest.resource);
        let mut object = manifest.object.clone();
        let mut parameters = PatchParams::apply(MANAGER);
        for round in 0.. {
            let patch = Patch::Apply(&object);
            let written = self.kube.write(api.patch(&manifest.name, &parameters, &patch)).await;
            let failure = match written {
                Ok(applied) => {
                    info!(object = %manifest, "applied");
                    warn_of_strict_filter(manifest, &applied);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let conflicts = match &failure {
                ApiFailure::Refused(status) => conflicts(status),
                _ => Vec::new(),
            };
            if conflicts.is_empty() || round == MAX_ROUNDS {
                return Err(failure);
            }
            let (own, others): (Vec<_>, Vec<_>) =
                conflicts.into_iter().partition(|conflict| conflict.manager == MANAGER);
            for Conflict { field, manager } in others {
                warn!(object = %manifest, field, manager, "field was changed by another manager and is kept");
                drop_field(&mut object, &field);
            }
            // What an older version of this program has created is not somebody else's.
            parameters.force = !own.is_empty();
        }
        Ok(())
    }
}

/// The webhook is not asked about a field that somebody else has set before and that is kept. ADD refuses it.
fn warn_of_strict_filter(manifest: &Manifest, applied: &DynamicObject) {
    let Some(settings) = applied.data.get("spec").and_then(|spec| Settings::deserialize(spec).ok()) else {
        return;
    };
    if manifest.resource.kind == "SpiderCoordinator" && settings.is_strict_with_programs() {
        let error = SettingsError::StrictRpFilter;
        warn!(object = %manifest, %error, "new pods of this cluster do not start");
    }
}

/// The fields that the API server names in its refusal.
fn conflicts(status: &Status) -> Vec<Conflict> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| Conflict {
            field: cause.field.clone(),
            // conflict with "kubectl-edit" using v1
            manager: cause.message.split('"').nth(1).unwrap_or_default().to_owned(),
        })
        .collect()
}

/// Removes `.spec.a.b`; for an element of a list the whole list, which is applied as one.
fn drop_field(object: &mut Value, field: &str) {
    let path = field.split('[').next().unwrap_or_default();
    let mut names: Vec<&str> = path.split('.').filter(|name| !name.is_empty()).collect();
    let Some(last) = names.pop() else { return };
    let parent = names.into_iter().try_fold(object, |value, name| value.get_mut(name));
    if let Some(members) = parent.and_then(Value::as_object_mut) {
        members.remove(last);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conflicts_are_read_from_the_refusal() {
        let status: Status = serde_json::from_value(json!({
            "status": "Failure", "code": 409, "reason": "Conflict", "message": "Apply failed with 1 conflict",
            "details": {"causes": [
                {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using v1", "field": ".spec.mode"},
            ]},
        }))
        .unwrap();
        assert_eq!(
            conflicts(&status),
            [Conflict { field: ".spec.mode".into(), manager: "kubectl-edit".into() }]
        );
    }

    #[test]
    fn fields_are_removed_at_any_depth() {
        let mut object = json!({"spec": {"mode": "auto", "ebpf": {"routeHints": "auto"}, "ips": ["a"]}});
        drop_field(&mut object, ".spec.mode");
        drop_field(&mut object, ".spec.ebpf.routeHints");
        drop_field(&mut object, ".spec.ips[0]");
        drop_field(&mut object, ".spec.none.deeper");
        assert_eq!(object, json!({"spec": {"ebpf": {}}}));
    }
}
