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
use kube::core::admission::{AdmissionResponse, AdmissionReview};
use tracing::{debug, info, warn};

use super::kind::Kind;
use super::response::{Request, of_error, of_verdict};
use super::review::{Validators, mutate};

/// Two objects of the size that etcd takes (1.5 MiB each), and what is around them.
const MAX_BODY: usize = 4 << 20;

/// All paths.
pub(super) fn router(validators: Arc<Validators>) -> Router {
    let mut router = Router::new().route("/webhook-health-check", any(|| async {}));
    for kind in Kind::ALL {
        let path = |action: &str| format!("/{action}-spiderpool-spidernet-io-v2beta1-{}", kind.path());
        let mutating = move |body: Bytes| async move { answer(&body, |request| mutate(kind, request)) };
        let validating = move |State(validators): State<Arc<Validators>>, body: Bytes| async move {
            answer_validation(kind, &validators, &body).await
        };
        router = router.route(&path("mutate"), post(mutating)).route(&path("validate"), post(validating));
    }
    router.layer(DefaultBodyLimit::max(MAX_BODY)).with_state(validators)
}

fn answer(body: &Bytes, review: impl FnOnce(&Request) -> AdmissionResponse) -> Response {
    match parse(body) {
        Ok(request) => Json(review(&request).into_review()).into_response(),
        Err(refused) => refused,
    }
}

async fn answer_validation(kind: Kind, validators: &Validators, body: &Bytes) -> Response {
    let request = match parse(body) {
        Ok(request) => request,
        Err(refused) => return refused,
    };
    let response = match validators.validate(kind, &request).await {
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

#[cfg(test)]
mod tests;
