//! Bodies of requests: how large one may be, and how many bytes of all of them are held at a time. Whoever reaches the port
//! can send, so memory has a bound whatever comes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A review has the object and the one that it replaces. etcd takes requests of 1.5 MiB (`--max-request-bytes`), and custom
/// resources are stored as JSON: what is larger could not be stored anyway.
pub(super) const MAX_BODY: usize = (3 << 20) + (64 << 10);
/// Almost every review is smaller. The places for those are not taken by large ones.
const SMALL: usize = 64 << 10;
/// Bytes of small bodies.
const SMALL_TOTAL: usize = 4 << 20;
/// Bytes of large ones.
const LARGE_TOTAL: usize = 2 * MAX_BODY;
/// The API server sends a body at once: who is slow keeps its place no longer than this.
const ARRIVAL: Duration = Duration::from_secs(2);

/// The places for bodies.
#[derive(Debug)]
pub(super) struct BodyBudget {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// A body with its place.
#[derive(Debug)]
pub(super) struct HeldBody {
    pub(super) bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

impl HeldBody {
    /// Whether it takes long to parse.
    pub(super) fn is_large(&self) -> bool {
        self.bytes.len() > SMALL
    }
}

impl Default for BodyBudget {
    fn default() -> Self {
        let places = |bytes| Arc::new(Semaphore::new(bytes));
        Self { small: places(SMALL_TOTAL), large: places(LARGE_TOTAL) }
    }
}

impl BodyBudget {
    /// The whole body, when there is a place for it.
    pub(super) async fn read(&self, body: Body) -> Result<HeldBody, (StatusCode, &'static str)> {
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let Some(length) = length else {
            return Err((StatusCode::LENGTH_REQUIRED, "a review says how long it is"));
        };
        if length > MAX_BODY {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "no object of this size can be stored"));
        }
        let places = if length > SMALL { &self.large } else { &self.small };
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        let closed = |_| (StatusCode::SERVICE_UNAVAILABLE, "the webhooks are shutting down");
        let place = Arc::clone(places).acquire_many_owned(bytes).await.map_err(closed)?;
        match tokio::time::timeout(ARRIVAL, to_bytes(body, length)).await {
            Ok(Ok(bytes)) => Ok(HeldBody { bytes, _place: place }),
            Ok(Err(_)) => Err((StatusCode::BAD_REQUEST, "the body is not complete")),
            Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body does not arrive")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(length: usize) -> Body {
        Body::from(vec![b'x'; length])
    }

    async fn fails(budget: &BodyBudget, body: Body) -> StatusCode {
        budget.read(body).await.unwrap_err().0
    }

    #[tokio::test]
    async fn a_body_says_its_length_and_is_not_larger_than_what_can_be_stored() {
        let budget = BodyBudget::default();
        assert_eq!(fails(&budget, of(MAX_BODY + 1)).await, StatusCode::PAYLOAD_TOO_LARGE);
        let unknown = Body::from_stream(futures::stream::iter([Ok::<_, std::io::Error>("x")]));
        assert_eq!(fails(&budget, unknown).await, StatusCode::LENGTH_REQUIRED);
        assert!(budget.read(of(MAX_BODY)).await.unwrap().is_large());
    }

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_hold_up_no_small_one() {
        let budget = BodyBudget::default();
        let first = budget.read(of(MAX_BODY)).await.unwrap();
        let _second = budget.read(of(MAX_BODY)).await.unwrap();
        let third = budget.read(of(MAX_BODY));
        tokio::pin!(third);
        tokio::select! {
            biased;
            _ = &mut third => panic!("there is no place for it"),
            small = budget.read(of(SMALL)) => assert!(!small.unwrap().is_large()),
        }
        drop(first);
        third.await.unwrap();
    }
}
