//! Requests that the API server refuses for now (429, 503, 504) are sent again, as late as its Retry-After says: not those that
//! would wait for more than a minute, nor a POST after 504, which may have been carried out.

use std::cell::Cell;
use std::time::Duration;

use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use tokio::time::{Instant, Sleep};
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

/// A proxy under maintenance may name an hour in Retry-After. If it is longer than this, the caller gets the refusal, and tries
/// again by its own backoff.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

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
        let status = outcome.as_ref().ok().map(Response::status);
        // The object may have been created: callers take an AlreadyExists for somebody else's if it is the first answer.
        if status == Some(StatusCode::GATEWAY_TIMEOUT) && request.method() == Method::POST {
            return None;
        }
        let pause = self.0.retry(request, outcome)?;
        if pause.deadline() > Instant::now() + LONGEST_PAUSE {
            return None;
        }
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

#[cfg(test)]
mod tests {
    use hyper::header::RETRY_AFTER;

    use super::*;

    #[tokio::test]
    async fn what_may_have_been_created_is_not_sent_again_and_nobody_waits_for_an_hour() {
        let is_sent_again = |method: Method, status: u16, seconds: u32| {
            let mut request = Request::builder().method(method).uri("/api").body(Body::empty()).unwrap();
            let response = Response::builder().status(status).header(RETRY_AFTER, seconds).body(());
            let mut outcome: Result<_, BoxError> = Ok(response.unwrap());
            Retries::default().retry(&mut request, &mut outcome).is_some()
        };
        for status in [429, 503] {
            assert!(is_sent_again(Method::POST, status, 2) && is_sent_again(Method::GET, status, 2));
            assert!(!is_sent_again(Method::GET, status, 3600), "{status}");
        }
        assert!(is_sent_again(Method::GET, 504, 2) && !is_sent_again(Method::POST, 504, 2));
    }
}
