//! A proxy before the API server that counts writes and injects a fault at the n-th: kills the agent before the request
//! reaches the server or after the server has committed it, or loses the answer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

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
    client: DebugClient,
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

struct DebugClient(Client);

impl std::fmt::Debug for DebugClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// The running proxy: plain HTTP towards the agent, one agent's identity towards the server.
#[derive(Debug)]
pub struct FaultProxy {
    state: Arc<State>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy that injects its fault once, at write number `at`.
    pub async fn start(identity: &Path, fault: Fault, at: usize) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(identity)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let state = Arc::new(State {
            client: DebugClient(Client::try_from(config)?),
            fault,
            at,
            writes: AtomicUsize::new(0),
            victim: AtomicI32::new(0),
            injected: AtomicBool::new(false),
            restored: AtomicBool::new(false),
            lists: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { state, address, accepting })
    }

    /// A kubeconfig that leads to the proxy.
    pub fn kubeconfig(&self, folder: &Path) -> Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let path = folder.join("kubeconfig");
        let content = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{}", self.address)}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "agent"}}],
            "users": [{"name": "agent", "user": {}}],
        });
        fs::write(&path, content.to_string()).with_context(|| path.display().to_string())?;
        Ok(path)
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

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let answer = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { forward(&state, request).await }
    });
    // An error here is the broken connection that the test wants, or the agent's end.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
}

async fn forward(state: &State, request: Request<Incoming>) -> Result<Response<Body>> {
    let is_write = ![Method::GET, Method::HEAD].contains(request.method());
    let write = if is_write { state.writes.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
    let hit = is_write && is_hit(state, write);
    if hit && (state.fault == Fault::Refuse || state.fault == Fault::LoseAnswerThenRefuse && write > state.at)
    {
        return refuse(state);
    }
    if hit && state.fault == Fault::KillBefore {
        return strike(state);
    }
    if is_exact_list(&request) {
        state.lists.fetch_add(1, Ordering::SeqCst);
        while state.fault == Fault::HoldLists && !state.restored.load(Ordering::SeqCst) {
            tokio::time::sleep(HOLD_PAUSE).await;
        }
    }
    if is_hidden(state, &request) {
        anyhow::bail!("nothing to see");
    }
    let undecodable = undecodable_pool(state, &request);
    let (mut parts, body) = request.into_parts();
    parts.headers.remove("host");
    let body = Body::from(body.collect().await?.to_bytes().to_vec());
    let response = state.client.0.send(Request::from_parts(parts, body)).await?;
    if hit {
        return strike(state);
    }
    match undecodable {
        Some(name) => spoil_pool(response, name).await,
        None => Ok(response),
    }
}

/// The pool whose spec is not to be decoded, if the request reads pools. A watch has only metadata.
fn undecodable_pool(state: &State, request: &Request<Incoming>) -> Option<&'static str> {
    let Fault::UndecodablePool(name) = state.fault else { return None };
    let is_read = request.method() == Method::GET
        && request.uri().path().contains("/spiderippools")
        && !request.uri().query().unwrap_or_default().contains("watch=");
    (is_read && !state.restored.load(Ordering::SeqCst)).then_some(name)
}

async fn spoil_pool(response: Response<Body>, name: &str) -> Result<Response<Body>> {
    let (mut parts, body) = response.into_parts();
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
    parts.headers.remove("content-length");
    Ok(Response::from_parts(parts, Body::from(content.to_string().into_bytes())))
}

fn is_exact_list(request: &Request<Incoming>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.method() == Method::GET
        && request.uri().path().ends_with("/spideripaddresses")
        && query.contains("ippool")
        && !query.contains("resourceVersion=0")
}

fn is_hit(state: &State, write: usize) -> bool {
    match state.fault {
        Fault::LoseAnswers | Fault::LoseAnswerThenRefuse | Fault::Refuse => {
            write >= state.at && !state.restored.load(Ordering::SeqCst)
        }
        _ => write == state.at,
    }
}

fn is_hidden(state: &State, request: &Request<Incoming>) -> bool {
    state.fault == Fault::LoseAnswerThenSight
        && state.injected.load(Ordering::SeqCst)
        && !state.restored.load(Ordering::SeqCst)
        && request.method() == Method::GET
        && request.uri().path().contains("/spideripaddresses/")
}

/// The answer of a server that forbids the request.
fn refuse(state: &State) -> Result<Response<Body>> {
    state.injected.store(true, Ordering::SeqCst);
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "refused by the test",
    });
    let response = Response::builder().status(403).header("content-type", "application/json");
    Ok(response.body(Body::from(status.to_string().into_bytes()))?)
}

/// Ends in an error, which closes the connection without an answer.
fn strike(state: &State) -> Result<Response<Body>> {
    // First: who sees the agent's end must find this said.
    state.injected.store(true, Ordering::SeqCst);
    if [Fault::KillBefore, Fault::KillAfter].contains(&state.fault) {
        let victim = state.victim.load(Ordering::SeqCst);
        anyhow::ensure!(victim > 0, "nobody to kill");
        kill(Pid::from_raw(victim), Signal::SIGKILL)?;
    }
    anyhow::bail!("injected")
}
