//! A proxy before the API server that counts writes and injects a fault at the n-th: kills the agent before the request
//! reaches the server or after the server has committed it, or loses the answer. What befalls all requests for a while is an
//! [`crate::outage::Outage`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::api_proxy::{Answer, ApiProxy, Interference, Server, failure, is_watch, json_answer, whole};

/// Between two looks whether what is held may go on.
const HOLD_PAUSE: Duration = Duration::from_millis(20);

/// What happens to the chosen write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The agent is killed before the server sees the request.
    KillBefore,
    /// The agent is killed when the server has committed and answered.
    KillAfter,
    /// The server commits, but the connection breaks before its answer arrives.
    LoseAnswer,
    /// The same for this write and all that follow, until [`FaultProxy::restore`].
    LoseAnswers,
    /// The answer of this write is lost, and all that follow are refused with 403, until [`FaultProxy::restore`].
    LoseAnswerThenRefuse,
    /// The answer of this write is lost, and nobody can read an address after it, until [`FaultProxy::restore`].
    LoseAnswerThenSight,
    /// This write and all that follow are refused with 403, until [`FaultProxy::restore`].
    Refuse,
    /// No write is hit. The SpiderIPPool of this name has no list in `spec.ips` where it is read, until
    /// [`FaultProxy::restore`].
    UndecodablePool(&'static str),
    /// No write is hit. Lists of addresses that are not from a cache get no answer, until [`FaultProxy::restore`].
    HoldLists,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    /// Which write is hit, from 1.
    at: usize,
    writes: AtomicUsize,
    /// The agent to kill; 0 while there is none.
    victim: AtomicI32,
    injected: AtomicBool,
    restored: AtomicBool,
    /// Lists of addresses that were not from a cache.
    lists: AtomicUsize,
}

/// The running proxy.
#[derive(Debug)]
pub struct FaultProxy {
    state: Arc<State>,
    proxy: ApiProxy,
}

impl FaultProxy {
    /// Starts a proxy that injects its fault once, at write number `at`.
    pub async fn start(identity: &Path, fault: Fault, at: usize) -> Result<Self> {
        let state = Arc::new(State {
            fault,
            at,
            writes: AtomicUsize::new(0),
            victim: AtomicI32::new(0),
            injected: AtomicBool::new(false),
            restored: AtomicBool::new(false),
            lists: AtomicUsize::new(0),
        });
        let proxy = ApiProxy::start(identity, Arc::clone(&state)).await?;
        Ok(Self { state, proxy })
    }

    /// A kubeconfig that leads to the proxy.
    pub fn kubeconfig(&self, folder: &Path) -> Result<PathBuf> {
        self.proxy.kubeconfig(folder)
    }

    /// The agent that is killed.
    pub fn set_target(&self, process: u32) {
        self.state.victim.store(process.cast_signed(), Ordering::SeqCst);
    }

    /// No answer is lost any more.
    pub fn restore(&self) {
        self.state.restored.store(true, Ordering::SeqCst);
    }

    /// How many lists of addresses were requested that are not from a cache.
    pub fn lists(&self) -> usize {
        self.state.lists.load(Ordering::SeqCst)
    }

    /// Whether the write has come and the fault has happened.
    pub fn is_injected(&self) -> bool {
        self.state.injected.load(Ordering::SeqCst)
    }
}

impl Interference for State {
    async fn answer(&self, server: &Server, request: Request<Incoming>) -> Result<Answer> {
        let is_write = ![Method::GET, Method::HEAD].contains(request.method());
        let write = if is_write { self.writes.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
        let hit = is_write && self.is_hit(write);
        if hit
            && (self.fault == Fault::Refuse || self.fault == Fault::LoseAnswerThenRefuse && write > self.at)
        {
            return self.refuse();
        }
        if hit && self.fault == Fault::KillBefore {
            return self.strike();
        }
        if is_exact_list(&request) {
            self.lists.fetch_add(1, Ordering::SeqCst);
            while self.fault == Fault::HoldLists && !self.restored.load(Ordering::SeqCst) {
                tokio::time::sleep(HOLD_PAUSE).await;
            }
        }
        if self.is_hidden(&request) {
            anyhow::bail!("nothing to see");
        }
        let undecodable = self.undecodable_pool(&request);
        let answer = server.forward(request).await?;
        if hit {
            return self.strike();
        }
        match undecodable {
            Some(name) => spoil_pool(answer, name).await,
            None => Ok(answer),
        }
    }
}

impl State {
    /// The pool whose spec is not to be decoded, if the request reads pools. A watch has only metadata.
    fn undecodable_pool(&self, request: &Request<Incoming>) -> Option<&'static str> {
        let Fault::UndecodablePool(name) = self.fault else { return None };
        let is_read = request.method() == Method::GET
            && request.uri().path().contains("/spiderippools")
            && !is_watch(request);
        (is_read && !self.restored.load(Ordering::SeqCst)).then_some(name)
    }

    fn is_hit(&self, write: usize) -> bool {
        match self.fault {
            Fault::LoseAnswers | Fault::LoseAnswerThenRefuse | Fault::Refuse => {
                write >= self.at && !self.restored.load(Ordering::SeqCst)
            }
            _ => write == self.at,
        }
    }

    fn is_hidden(&self, request: &Request<Incoming>) -> bool {
        self.fault == Fault::LoseAnswerThenSight
            && self.injected.load(Ordering::SeqCst)
            && !self.restored.load(Ordering::SeqCst)
            && request.method() == Method::GET
            && request.uri().path().contains("/spideripaddresses/")
    }

    /// The answer of a server that forbids the request.
    fn refuse(&self) -> Result<Answer> {
        self.injected.store(true, Ordering::SeqCst);
        json_answer(403, &failure(403, "Forbidden", "refused by the test"))
    }

    /// Ends in an error, which closes the connection without an answer.
    fn strike(&self) -> Result<Answer> {
        // First: who sees the agent's end must find this said.
        self.injected.store(true, Ordering::SeqCst);
        if [Fault::KillBefore, Fault::KillAfter].contains(&self.fault) {
            let victim = self.victim.load(Ordering::SeqCst);
            anyhow::ensure!(victim > 0, "nobody to kill");
            kill(Pid::from_raw(victim), Signal::SIGKILL)?;
        }
        anyhow::bail!("injected")
    }
}

async fn spoil_pool(answer: Answer, name: &str) -> Result<Answer> {
    let (mut parts, body) = answer.into_parts();
    let mut content: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
    let spoil = |pool: &mut Value| {
        if pool["metadata"]["name"] == name && pool["spec"].is_object() {
            pool["spec"]["ips"] = json!(5);
        }
    };
    match content["items"].as_array_mut() {
        Some(pools) => pools.iter_mut().for_each(spoil),
        None => spoil(&mut content),
    }
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(parts, whole(content.to_string())))
}

fn is_exact_list(request: &Request<Incoming>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == Method::GET
        && request.uri().path().ends_with("/spideripaddresses")
        && query.contains("ippool")
        && !query.contains("resourceVersion=0")
}
