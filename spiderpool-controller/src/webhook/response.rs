//! From what was decided to an answer that the API server hands on to its client.

use std::time::Duration;

use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse};
use kube::core::response::{Status, StatusCause, StatusDetails, StatusSummary, reason};
use serde_json::Value;
use spiderpool_core::error_list::ErrorList;
use spiderpool_core::field_error::FieldError;
use spiderpool_runtime::kubernetes::ApiFailure;
use thiserror::Error;

/// How many faults an answer has one by one: kubectl prints a line for each.
const MAX_CAUSES: usize = 20;

/// What the API server sends.
pub(super) type Request = AdmissionRequest<DynamicObject>;

/// What was decided.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Why the object is refused; none if it is admitted.
    pub(super) faults: Vec<FieldError>,
    /// What its author should know.
    pub(super) warnings: Vec<String>,
}

/// Nothing could be decided.
#[derive(Debug, Error)]
pub(super) enum ReviewError {
    /// What the decision needs could not be read.
    #[error("cannot find out which addresses are in use, try again: {0}")]
    Addresses(#[from] ApiFailure),
    /// It could not be read in time.
    #[error("cannot find out which addresses are in use within {0:?}, try again")]
    Late(Duration),
    /// The subnet of a pool could not be read.
    #[error("cannot read SpiderSubnet {subnet}, to which the pool belongs, try again: {source}")]
    Subnet {
        /// The subnet.
        subnet: String,
        /// Why.
        source: ApiFailure,
    },
    /// It could not be read in time.
    #[error("cannot read SpiderSubnet {subnet}, to which the pool belongs, within {limit:?}, try again")]
    LateSubnet {
        /// The subnet.
        subnet: String,
        /// The time.
        limit: Duration,
    },
    /// What the decision about a pod needs could not be read.
    #[error("cannot find out which networks the Pod gets, try again: {what} could not be read: {source}")]
    Networks {
        /// What of it.
        what: &'static str,
        /// Why.
        source: ApiFailure,
    },
    /// It was deleted and created meanwhile, or the review is not the API server's.
    #[error("the stored IPPool of this name is another one, try again")]
    AnotherPool,
}

impl From<Vec<FieldError>> for Verdict {
    fn from(faults: Vec<FieldError>) -> Self {
        Self { faults, warnings: Vec::new() }
    }
}

/// A refusal has all faults, as the API server words its own.
pub(super) fn of_verdict(request: &Request, verdict: Verdict) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    response.warnings = Some(verdict.warnings).filter(|warnings| !warnings.is_empty());
    if !verdict.faults.is_empty() {
        response.allowed = false;
        response.result = invalid(request, &verdict.faults);
    }
    response
}

fn invalid(request: &Request, faults: &[FieldError]) -> Status {
    let (kind, group, name) = (&request.kind.kind, &request.kind.group, &request.name);
    let qualified = if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") };
    let causes = faults.iter().take(MAX_CAUSES).map(|fault| StatusCause {
        reason: fault.problem.cause().to_owned(),
        message: fault.problem.to_string(),
        field: fault.path.clone(),
    });
    let more = faults.len().saturating_sub(MAX_CAUSES);
    let more = (more > 0).then(|| StatusCause {
        reason: String::new(),
        message: format!("and {more} more faults"),
        field: String::new(),
    });
    let details = StatusDetails {
        name: name.clone(),
        group: group.clone(),
        kind: kind.clone(),
        causes: causes.chain(more).collect(),
        uid: String::new(),
        retry_after_seconds: 0,
    };
    Status {
        status: Some(StatusSummary::Failure),
        code: 422,
        reason: reason::INVALID.to_owned(),
        message: format!("{qualified} {name:?} is invalid: {}", ErrorList(faults)),
        details: Some(details),
        metadata: None,
    }
}

/// What would be right may be so later.
pub(super) fn of_error(request: &Request, error: &ReviewError) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    response.allowed = false;
    response.result = Status::failure(&error.to_string(), reason::SERVICE_UNAVAILABLE).with_code(503);
    response
}

/// A JSON patch of exactly what differs.
pub(super) fn of_mutation(response: AdmissionResponse, before: &Value, after: &Value) -> AdmissionResponse {
    let patch = json_patch::diff(before, after);
    if patch.is_empty() {
        return response;
    }
    // It is of values that came as JSON.
    response.clone().with_patch(patch).unwrap_or(response)
}
