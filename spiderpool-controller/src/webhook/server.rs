//! Requests of the API server: by path, to the kind's functions. A request that cannot be read is answered with 400 and
//! harms no other.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{any, post};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionResponse, AdmissionReview};
use tokio::runtime::Handle;
use tracing::{debug, error, info, warn};

use super::body::BodyBudget;
use super::kind::Kind;
use super::response::{Request, of_error, of_verdict};
use super::review::Validators;

/// Where pods are completed, as upstream has it.
const POD_PATH: &str = "/mutate--v1-pod";

/// Less than the API server waits (`timeoutSeconds` of the chart's configurations).
const DEADLINE: Duration = Duration::from_secs(4);

/// What a path is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// An object of ours.
    Object(Kind, Action),
    /// A pod, which is completed.
    Pod,
}

/// What a review asks for, which its path says.
#[derive(Debug, Clone, Copy)]
enum Action {
    Mutate,
    Validate,
}

impl Action {
    const ALL: [Self; 2] = [Self::Mutate, Self::Validate];

    /// The first part of its paths, as upstream has them.
    fn path(self) -> &'static str {
        match self {
            Self::Mutate => "mutate",
            Self::Validate => "validate",
        }
    }
}

#[derive(Clone)]
struct Server {
    validators: Arc<Validators>,
    bodies: Arc<BodyBudget>,
}

/// All paths.
pub(super) fn router(validators: Validators) -> Router {
    let mut router = Router::new().route("/webhook-health-check", any(|| async {}));
    for kind in Kind::ALL {
        for action in Action::ALL {
            let path = format!("/{}-spiderpool-spidernet-io-v2beta1-{}", action.path(), kind.path());
            let review = move |State(server): State<Server>, body: Body| async move {
                server.handle(Purpose::Object(kind, action), body).await
            };
            router = router.route(&path, post(review));
        }
    }
    // Also while pods are not completed: in a rolling update that turns this on or off, the API server may ask either replica.
    let review = async |State(server): State<Server>, body: Body| server.handle(Purpose::Pod, body).await;
    router = router.route(POD_PATH, post(review));
    router.with_state(Server { validators: Arc::new(validators), bodies: Arc::default() })
}

impl Server {
    async fn handle(self, purpose: Purpose, body: Body) -> Response {
        let answered = tokio::time::timeout(DEADLINE, self.answer(purpose, body)).await;
        answered.unwrap_or_else(|_| {
            warn!(?purpose, "a review was not answered in time");
            (StatusCode::SERVICE_UNAVAILABLE, "the controller is busy, try again").into_response()
        })
    }

    async fn answer(self, purpose: Purpose, body: Body) -> Response {
        let body = match self.bodies.read(body).await {
            Ok(body) => body,
            Err(refused) => return refused.into_response(),
        };
        if !body.is_large() {
            return self.review(purpose, &body.bytes).await;
        }
        // On a thread of its own: what renews the Lease does not wait for it.
        let handle = Handle::current();
        let reviewing = tokio::task::spawn_blocking(move || {
            // The whole of it, so that its place is taken until its bytes are gone, also after the deadline.
            let body = body;
            handle.block_on(self.review(purpose, &body.bytes))
        });
        reviewing.await.unwrap_or_else(|error| {
            error!(%error, "a review has failed");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        })
    }

    async fn review(&self, purpose: Purpose, body: &[u8]) -> Response {
        let request = match parse(body) {
            Ok(request) => request,
            Err(error) => {
                debug!(error, "not an AdmissionReview");
                return (StatusCode::BAD_REQUEST, format!("not an AdmissionReview: {error}")).into_response();
            }
        };
        let response = match (purpose, &self.validators.pods) {
            (Purpose::Object(kind, Action::Mutate), _) => self.validators.mutate(kind, request),
            (Purpose::Object(kind, Action::Validate), _) => self.validate(kind, &request).await,
            (Purpose::Pod, Some(pods)) => Box::pin(pods.review(request)).await,
            // They pass as they are.
            (Purpose::Pod, None) => AdmissionResponse::from(&request),
        };
        Json(response.into_review()).into_response()
    }

    async fn validate(&self, kind: Kind, request: &Request) -> AdmissionResponse {
        let response = match self.validators.validate(kind, request).await {
            Ok(verdict) => of_verdict(request, verdict),
            Err(error) => {
                warn!(%error, kind = request.kind.kind, name = request.name, "object not checked");
                of_error(request, &error)
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
        response
    }
}

fn parse(body: &[u8]) -> Result<Request, String> {
    let parsed: AdmissionReview<DynamicObject> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    parsed.try_into().map_err(|error: kube::core::admission::ConvertAdmissionReviewError| error.to_string())
}

#[cfg(test)]
mod tests;
