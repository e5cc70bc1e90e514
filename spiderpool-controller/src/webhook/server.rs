//! Requests of the API server: by path, to the kind's functions. A request that cannot be read is answered with 400 and
//! harms no other.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{any, post};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, AdmissionReview, Operation};
use serde::de::DeserializeOwned;
use serde_json::Value;
use spiderpool_core::field_error::FieldError;
use tracing::{debug, info, warn};

use super::ip_pool::PoolValidator;
use super::response::{Request, ReviewError, Verdict, of_error, of_mutation, of_verdict};
use super::{coordinator, ip_pool, reserved_ip};

/// Two objects of the size that etcd takes (1.5 MiB each), and what is around them.
const MAX_BODY: usize = 4 << 20;

/// The kinds that have webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    IpPool,
    ReservedIp,
    Coordinator,
}

impl Kind {
    const ALL: [Self; 3] = [Self::IpPool, Self::ReservedIp, Self::Coordinator];

    /// The last part of its paths, as upstream has them.
    fn path(self) -> &'static str {
        match self {
            Self::IpPool => "spiderippool",
            Self::ReservedIp => "spiderreservedip",
            Self::Coordinator => "spidercoordinator",
        }
    }
}

/// All paths.
pub(super) fn router(pools: Arc<PoolValidator>) -> Router {
    let mut router = Router::new().route("/webhook-health-check", any(|| async {}));
    for kind in Kind::ALL {
        let path = |action: &str| format!("/{action}-spiderpool-spidernet-io-v2beta1-{}", kind.path());
        let mutating = move |body: Bytes| async move { answer(&body, |request| mutate(kind, request)) };
        let validating = move |State(pools): State<Arc<PoolValidator>>, body: Bytes| async move {
            answer_validation(kind, &pools, &body).await
        };
        router = router.route(&path("mutate"), post(mutating)).route(&path("validate"), post(validating));
    }
    router.layer(DefaultBodyLimit::max(MAX_BODY)).with_state(pools)
}

fn answer(body: &Bytes, review: impl FnOnce(&Request) -> AdmissionResponse) -> Response {
    match parse(body) {
        Ok(request) => Json(review(&request).into_review()).into_response(),
        Err(refused) => refused,
    }
}

async fn answer_validation(kind: Kind, pools: &PoolValidator, body: &Bytes) -> Response {
    let request = match parse(body) {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let response = match validate(kind, pools, &request).await {
        Ok(verdict) => of_verdict(&request, verdict),
        Err(error) => {
            warn!(%error, kind = request.kind.kind, name = request.name, "object not checked");
            of_error(&request, &error)
        }
    };
    if !response.allowed {
        info!(
            kind = request.kind.kind,
            name = request.name,
            reason = response.result.message,
            "object refused"
        );
    }
    Json(response.into_review()).into_response()
}

#[expect(clippy::result_large_err, reason = "the answer is sent at once")]
fn parse(body: &Bytes) -> Result<Request, Response> {
    let parsed = serde_json::from_slice::<AdmissionReview<DynamicObject>>(body);
    let request = parsed.map_err(|error| error.to_string()).and_then(|parsed| {
        let request: Result<Request, _> = parsed.try_into();
        request.map_err(|error| error.to_string())
    });
    request.map_err(|error| {
        debug!(error, "not an AdmissionReview");
        (StatusCode::BAD_REQUEST, format!("not an AdmissionReview: {error}")).into_response()
    })
}

/// Never refuses: what cannot be completed is refused when it is validated.
fn mutate(kind: Kind, request: &Request) -> AdmissionResponse {
    let object = request.object.as_ref().filter(|object| object.metadata.deletion_timestamp.is_none());
    let Some(before) = object.and_then(|object| serde_json::to_value(object).ok()) else {
        return AdmissionResponse::from(request);
    };
    let mut after = before.clone();
    match kind {
        Kind::IpPool => ip_pool::mutate(&mut after),
        Kind::ReservedIp => reserved_ip::mutate(&mut after),
        Kind::Coordinator => coordinator::mutate(&mut after),
    }
    of_mutation(request, &before, &after)
}

async fn validate(kind: Kind, pools: &PoolValidator, request: &Request) -> Result<Verdict, ReviewError> {
    let old = request.old_object.as_ref();
    if request.operation == Operation::Delete {
        return match kind {
            Kind::IpPool => pools.validate_deletion(&request.name).await,
            Kind::ReservedIp | Kind::Coordinator => Ok(Verdict::default()),
        };
    }
    let Some(new) = &request.object else { return Ok(Verdict::default()) };
    // Labels, finalizers and marks change also where the spec has faults that are older than this webhook.
    if old.is_some_and(|old| spec_is_unchanged(new, old)) {
        return Ok(Verdict::default());
    }
    let old = old.and_then(|old| serde_json::to_value(old).ok());
    match kind {
        Kind::IpPool => match typed(new) {
            Ok(new) => pools.validate(&new, old.as_ref()).await,
            Err(verdict) => Ok(verdict),
        },
        Kind::ReservedIp => Ok(match typed(new) {
            Ok(new) => {
                let old = old.and_then(|old| serde_json::from_value(old).ok());
                reserved_ip::validate(&new, old.as_ref(), pools.families)
            }
            Err(verdict) => verdict,
        }),
        Kind::Coordinator => Ok(match typed(new) {
            Ok(new) => coordinator::validate(&new),
            Err(verdict) => verdict,
        }),
    }
}

/// The CRD's schema has refused what does not fit, so this is about a CRD of another version.
fn typed<K: DeserializeOwned>(object: &DynamicObject) -> Result<K, Verdict> {
    let value = serde_json::to_value(object).and_then(serde_json::from_value);
    value.map_err(|error| {
        vec![FieldError::invalid("spec", "", format!("does not fit the CRD: {error}"))].into()
    })
}

/// The version that the leader fills in is no change of the spec.
fn spec_is_unchanged(new: &DynamicObject, old: &DynamicObject) -> bool {
    let spec = |object: &DynamicObject| object.data.get("spec").cloned().unwrap_or_default();
    let (mut new, old) = (spec(new), spec(old));
    if old.get("ipVersion").is_none()
        && let Some(members) = new.as_object_mut()
    {
        members.remove("ipVersion");
    }
    new == old || (new == Value::Null && old == Value::Null)
}

#[cfg(test)]
mod tests;
