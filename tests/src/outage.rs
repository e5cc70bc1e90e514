//! A proxy before the API server that makes all requests of its client suffer for a while: it refuses or delays them, or does
//! something to watches. It counts what it refuses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow, bail};
use futures::stream;
use http::Request;
use http::header::{HeaderValue, RETRY_AFTER};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use serde_json::json;
use tokio::sync::watch;

use crate::api_proxy::{Answer, ApiProxy, Interference, Server, failure, is_watch, json_answer};

/// What befalls requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Every request is refused with this status, and those of 429 or 503 with so many seconds in Retry-After. Watches break.
    Refuse {
        /// The status.
        code: u16,
        /// Seconds, if the answer says them.
        retry_after: Option<u32>,
    },
    /// Every answer begins so late.
    Delay(Duration),
    /// The connections of watches break, those of new ones at once.
    BreakWatches,
    /// Watches end with an event that says that they have expired.
    ExpireWatches,
    /// Watches end, and new ones are answered with status 410.
    GoneWatches,
    /// Watches stay open and deliver nothing, their end neither.
    SilenceWatches,
    /// Watches of this resource deliver nothing until the trouble is over: then what they have missed.
    LateWatches(&'static str),
    /// Watches end, and new ones get no answer.
    IgnoreWatches,
}

/// How often a request was refused, and from when until when.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// How often.
    pub times: u32,
    /// The first time.
    pub first: Instant,
    /// The last time.
    pub last: Instant,
    /// The shortest time between two.
    pub shortest_pause: Option<Duration>,
}

#[derive(Debug)]
struct State {
    trouble: watch::Sender<Trouble>,
    /// By method and path.
    refused: Mutex<BTreeMap<String, Refused>>,
    watches: AtomicUsize,
}

/// The running proxy.
#[derive(Debug)]
pub struct Outage {
    state: Arc<State>,
    proxy: ApiProxy,
}

impl Outage {
    /// Starts a proxy with the identity of a kubeconfig file, which does nothing yet.
    pub async fn start(identity: &Path) -> Result<Self> {
        let state = Arc::new(State {
            trouble: watch::Sender::new(Trouble::None),
            refused: Mutex::default(),
            watches: AtomicUsize::new(0),
        });
        let proxy = ApiProxy::start(identity, Arc::clone(&state)).await?;
        Ok(Self { state, proxy })
    }

    /// A kubeconfig that leads to the proxy.
    pub fn kubeconfig(&self, folder: &Path) -> Result<PathBuf> {
        self.proxy.kubeconfig(folder)
    }

    /// Something else befalls requests from now on.
    pub fn set(&self, trouble: Trouble) {
        if let Trouble::Refuse { .. } = trouble {
            self.state.refused().clear();
        }
        self.state.trouble.send_replace(trouble);
    }

    /// What was refused since requests began to be refused, by method and path.
    pub fn refused(&self) -> BTreeMap<String, Refused> {
        self.state.refused().clone()
    }

    /// How many watches were requested until now.
    pub fn watches(&self) -> usize {
        self.state.watches.load(Ordering::SeqCst)
    }
}

impl Interference for State {
    async fn answer(&self, server: &Server, request: Request<Incoming>) -> Result<Answer> {
        let is_watch = is_watch(&request);
        if is_watch {
            self.watches.fetch_add(1, Ordering::SeqCst);
        }
        let resource = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let trouble = *self.trouble.borrow();
        match trouble {
            Trouble::Refuse { code, retry_after } => {
                self.count(&request);
                return refuse(code, retry_after);
            }
            Trouble::Delay(time) => tokio::time::sleep(time).await,
            Trouble::BreakWatches if is_watch => bail!("broken by the test"),
            Trouble::GoneWatches if is_watch => return json_answer(410, &expired()),
            Trouble::IgnoreWatches if is_watch => {
                let mut changes = self.trouble.subscribe();
                changes.wait_for(|now| *now != Trouble::IgnoreWatches).await?;
                bail!("ignored by the test")
            }
            _ => {}
        }
        let answer = server.forward(request).await?;
        if is_watch && answer.status().is_success() {
            let changes = self.trouble.subscribe();
            return Ok(answer.map(|body| suffering(body, resource, changes)));
        }
        Ok(answer)
    }
}

impl State {
    fn refused(&self) -> MutexGuard<'_, BTreeMap<String, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, request: &Request<Incoming>) {
        let (key, now) = (format!("{} {}", request.method(), request.uri().path()), Instant::now());
        let mut refused = self.refused();
        let Some(entry) = refused.get_mut(&key) else {
            refused.insert(key, Refused { times: 1, first: now, last: now, shortest_pause: None });
            return;
        };
        let pause = now - std::mem::replace(&mut entry.last, now);
        entry.times += 1;
        entry.shortest_pause = Some(entry.shortest_pause.map_or(pause, |shortest| shortest.min(pause)));
    }
}

fn refuse(code: u16, retry_after: Option<u32>) -> Result<Answer> {
    let reason = match code {
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let mut answer = json_answer(code, &failure(code, reason, "refused by the test"))?;
    if let Some(seconds) = retry_after {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(answer)
}

fn expired() -> serde_json::Value {
    failure(410, "Expired", "too old resource version, says the test")
}

type Body = UnsyncBoxBody<Bytes, Error>;

/// The body of a watch of a resource under whatever befalls it.
fn suffering(body: Body, resource: String, changes: watch::Receiver<Trouble>) -> Body {
    let frames = stream::unfold(Some((body, resource, changes)), |state| async move {
        let (mut body, resource, mut changes): (Body, String, watch::Receiver<Trouble>) = state?;
        loop {
            let trouble = *changes.borrow_and_update();
            match trouble {
                Trouble::SilenceWatches => changes.changed().await.ok()?,
                Trouble::LateWatches(late) if late == resource => changes.changed().await.ok()?,
                Trouble::None | Trouble::Delay(_) | Trouble::LateWatches(_) => tokio::select! {
                    frame = body.frame() => return Some((frame?, Some((body, resource, changes)))),
                    Ok(()) = changes.changed() => {}
                },
                Trouble::Refuse { .. } | Trouble::BreakWatches => {
                    return Some((Err(anyhow!("broken by the test")), None));
                }
                Trouble::ExpireWatches => {
                    let event = format!("{}\n", json!({"type": "ERROR", "object": expired()}));
                    return Some((Ok(Frame::data(Bytes::from(event))), None));
                }
                Trouble::GoneWatches | Trouble::IgnoreWatches => return None,
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}
