//! Requests that the API server refuses for now (429, 503, 504) are sent again, as late as its Retry-After says.

use std::cell::Cell;

use hyper::{Request, Response, StatusCode};
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use tokio::time::Sleep;
use tower::BoxError;
use tower::retry::Policy;

tokio::task_local! {
    /// How the API server has refused the request that this task waits for.
    static REFUSAL: Cell<Option<StatusCode>>;
}

/// What came of some work, and how the API server has last refused a request of it, if it has.
pub(super) async fn with_refusal<T>(work: impl Future<Output = T>) -> (T, Option<StatusCode>) {
    let observed = async {
        let outcome = work.await;
        (outcome, REFUSAL.with(Cell::take))
    };
    REFUSAL.scope(Cell::new(None), observed).await
}

/// kube's policy. Whoever gives up waiting can say what he has waited for.
#[derive(Clone)]
pub(super) struct Retries(RetryPolicy);

impl Default for Retries {
    fn default() -> Self {
        Self(RetryPolicy::server_retry())
    }
}

impl<R> Policy<Request<Body>, Response<R>, BoxError> for Retries {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        outcome: &mut Result<Response<R>, BoxError>,
    ) -> Option<Sleep> {
        let pause = self.0.retry(request, outcome)?;
        if let Ok(response) = outcome {
            // Watches have nobody who asks.
            let _nobody = REFUSAL.try_with(|refusal| refusal.set(Some(response.status())));
        }
        Some(pause)
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Policy::<_, Response<R>, BoxError>::clone_request(&mut self.0, request)
    }
}
