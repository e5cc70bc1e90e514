//! Bodies of requests: how large one may be, how many bytes of all of them are held at a time, and what becomes of them when
//! they are parsed. Whoever reaches the port can send, so memory has a bound whatever comes.
//!
//! Small ones, of which there is one per connection, take no place: nobody has them wait. Large ones take it with the bytes
//! that have come, so who declares a length and sends nothing holds up nobody, and one of them is parsed at a time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use futures::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::weight::weight;

/// A review has the object and the one that it replaces. etcd takes requests of 1.5 MiB (`--max-request-bytes`), and custom
/// resources are stored as JSON: what is larger could not be stored anyway.
pub(super) const MAX_BODY: usize = (3 << 20) + (64 << 10);
/// What a review may weigh: as an object and the one that it replaces do that list every second address of a /16. Parsed, it
/// is about 15 MB.
const MAX_WEIGHT: usize = 100_000;
/// Almost every review is smaller. All connections together have 16 MiB of such bodies.
const SMALL: usize = 64 << 10;
/// And almost every one weighs less. Parsed, it is less than 300 KB.
const SMALL_WEIGHT: usize = 2_000;
/// Large bodies of which more than the beginning is held.
const ARRIVING: usize = 3;
/// The API server sends a body at once: who is slow keeps its place no longer than this.
const ARRIVAL: Duration = Duration::from_secs(2);

type Refused = (StatusCode, &'static str);

/// The places for large bodies.
#[derive(Debug)]
pub(super) struct BodyBudget {
    arriving: Arc<Semaphore>,
    parsed: Arc<Semaphore>,
}

/// A body with its places, if it needs them.
#[derive(Debug)]
pub(super) struct HeldBody {
    pub(super) bytes: Bytes,
    _arriving: Option<OwnedSemaphorePermit>,
    parsed: Option<OwnedSemaphorePermit>,
}

impl HeldBody {
    /// Whether it takes long to parse.
    pub(super) fn is_large(&self) -> bool {
        self.parsed.is_some()
    }
}

impl Default for BodyBudget {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { arriving: places(ARRIVING), parsed: places(1) }
    }
}

impl BodyBudget {
    /// The whole body, when there is a place for it.
    pub(super) async fn read(&self, body: Body) -> Result<HeldBody, Refused> {
        let length = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let Some(length) = length else {
            return Err((StatusCode::LENGTH_REQUIRED, "a review says how long it is"));
        };
        if length > MAX_BODY {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "no object of this size can be stored"));
        }
        let (mut bytes, mut rest) = (Vec::new(), body.into_data_stream());
        arrive(&mut bytes, &mut rest, length.min(SMALL)).await?;
        let mut arriving = None;
        if length > SMALL {
            arriving = Some(place(&self.arriving).await?);
            bytes.reserve_exact(length.saturating_sub(bytes.len()));
            arrive(&mut bytes, &mut rest, length).await?;
        }
        if bytes.len() != length {
            return Err((StatusCode::BAD_REQUEST, "the body is not complete"));
        }
        let weight = weight(&bytes);
        if weight > MAX_WEIGHT {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "no object has so many parts"));
        }
        let is_large = length > SMALL || weight > SMALL_WEIGHT;
        let parsed = if is_large { Some(place(&self.parsed).await?) } else { None };
        Ok(HeldBody { bytes: bytes.into(), _arriving: arriving, parsed })
    }
}

async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refused> {
    let closed = |_| (StatusCode::SERVICE_UNAVAILABLE, "the webhooks are shutting down");
    Arc::clone(places).acquire_owned().await.map_err(closed)
}

/// Waits until so many bytes have come, or the body has ended.
async fn arrive(
    bytes: &mut Vec<u8>,
    rest: &mut (impl Stream<Item = Result<Bytes, axum::Error>> + Unpin),
    length: usize,
) -> Result<(), Refused> {
    let arrived = async {
        while bytes.len() < length {
            match rest.next().await {
                Some(Ok(part)) => bytes.extend_from_slice(&part),
                Some(Err(_)) => return Err((StatusCode::BAD_REQUEST, "the body is not complete")),
                None => break,
            }
        }
        Ok(())
    };
    let late = (StatusCode::REQUEST_TIMEOUT, "the body does not arrive");
    tokio::time::timeout(ARRIVAL, arrived).await.map_err(|_| late)?
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

    /// Hundreds of MB of values fit in a body.
    #[tokio::test]
    async fn a_body_that_becomes_much_larger_when_it_is_parsed_is_refused_or_counts_as_large() {
        let budget = BodyBudget::default();
        let maps = |length: usize| Body::from(r#"{"":0},"#.repeat(length / 7));
        assert_eq!(fails(&budget, maps(3 << 20)).await, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(budget.read(maps(SMALL / 2)).await.unwrap().is_large());
        let every_second: Vec<_> = (0..32_768).map(|n| format!("10.6.{}.{}", n / 128, n % 128 * 2)).collect();
        let both = serde_json::to_string(&[&every_second, &every_second]).unwrap();
        assert!(budget.read(Body::from(both)).await.unwrap().is_large());
    }

    #[tokio::test]
    async fn large_bodies_wait_for_each_other_and_hold_up_no_small_one() {
        let budget = BodyBudget::default();
        let first = budget.read(of(MAX_BODY)).await.unwrap();
        let second = budget.read(of(MAX_BODY));
        tokio::pin!(second);
        tokio::select! {
            biased;
            _ = &mut second => panic!("there is no place for it"),
            small = budget.read(of(SMALL)) => assert!(!small.unwrap().is_large()),
        }
        drop(first);
        second.await.unwrap();
    }
}
