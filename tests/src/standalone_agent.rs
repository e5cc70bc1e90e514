//! spiderpool-agent without a node: only what it does with the API server. Its dataplane is not loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::exchange::{self, ask_socket, json_body};
use crate::poll;
use crate::process::Process;
use crate::tools;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running agent; dropping it kills it. Its folder stays for the next one of the same node.
#[derive(Debug)]
pub struct StandaloneAgent {
    process: Process,
    socket: PathBuf,
    log: PathBuf,
}

/// An answer of the agent.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// The body, if it is JSON; else null.
    pub body: Value,
}

impl Answer {
    /// The body of an answer 200.
    pub fn ok(self) -> Result<Value> {
        ensure!(self.status == StatusCode::OK, "{}: {}", self.status, self.body);
        Ok(self.body)
    }

    /// The text of a failed request.
    pub fn failure(&self) -> &str {
        self.body.as_str().unwrap_or_default()
    }
}

impl StandaloneAgent {
    /// Starts the agent of `node` in `folder` with access by `kubeconfig`, and waits for its socket.
    pub async fn start(folder: &Path, node: &str, kubeconfig: &Path) -> Result<Self> {
        Self::start_with(folder, node, kubeconfig, &json!({})).await
    }

    /// The same with these keys in its configuration file.
    pub async fn start_with(folder: &Path, node: &str, kubeconfig: &Path, file: &Value) -> Result<Self> {
        let mut agent = Self::spawn(folder, node, kubeconfig, file)?;
        poll::until_async(&format!("agent of {node}"), START_LIMIT, async || {
            let answer = agent.ask(Method::GET, "/v1/ipam/healthy", &Value::Null).await?;
            ensure!(answer.status == StatusCode::OK, "{}", answer.status);
            Ok(())
        })
        .await
        .with_context(|| agent.process.tail())?;
        agent.process.check_running()?;
        Ok(agent)
    }

    fn spawn(folder: &Path, node: &str, kubeconfig: &Path, file: &Value) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (socket, config) = (folder.join("agent.sock"), folder.join("conf.yml"));
        let mut content = json!({
            "ipamUnixSocketPath": socket, "enableIPv4": true, "enableIPv6": true, "enableStatefulSet": true,
            "enableKubevirtStaticIP": true,
        });
        for (key, value) in file.as_object().into_iter().flatten() {
            content[key] = value.clone();
        }
        // JSON is YAML.
        fs::write(&config, content.to_string())?;
        let mut command = Command::new(tools::spiderpool("spiderpool-agent")?);
        command
            .args(["daemon", "--config-path"])
            .arg(&config)
            .env("KUBECONFIG", kubeconfig)
            .env("SPIDERPOOL_NODE_NAME", node)
            .env("SPIDERPOOL_POD_NAME", format!("spiderpool-agent-{node}"))
            .env("SPIDERPOOL_POD_NAMESPACE", "kube-system")
            .env("SPIDERPOOL_LOG_LEVEL", "debug")
            // Any free port.
            .env("SPIDERPOOL_HEALTH_PORT", "0")
            .env("SPIDERPOOL_ENABLED_METRIC", "true")
            .env("SPIDERPOOL_METRIC_HTTP_PORT", "0")
            .env("SPIDERPOOL_BPF_OBJECT", tools::bpf_object()?)
            .env("SPIDERPOOL_STATE_DIR", folder)
            .env("SPIDERPOOL_BPF_DIR", folder.join("no-bpffs"));
        let log = folder.join("agent.log");
        // The log of an earlier agent names ports that are nobody's any more.
        drop(fs::remove_file(&log));
        let process = Process::start(&format!("agent of {node}"), &command, &log)?;
        Ok(Self { process, socket, log })
    }

    /// GET on the port of the probes.
    pub async fn probe(&self, path: &str) -> Result<(StatusCode, String)> {
        self.get("health probes are served", path).await
    }

    /// HEAD on the port of the probes.
    pub async fn head_probe(&self, path: &str) -> Result<StatusCode> {
        self.head("health probes are served", path).await
    }

    /// HEAD on the port of the metrics.
    pub async fn head_metrics(&self) -> Result<StatusCode> {
        self.head("metrics are served", "/metrics").await
    }

    /// The metrics as text.
    pub async fn metrics(&self) -> Result<String> {
        Ok(self.get("metrics are served", "/metrics").await?.1)
    }

    /// Its whole log.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// A connection to the port of the metrics that asks nothing.
    pub async fn connect_to_metrics(&self) -> Result<TcpStream> {
        self.connect("metrics are served").await
    }

    /// GET on a port that the agent's log names.
    async fn get(&self, message: &str, path: &str) -> Result<(StatusCode, String)> {
        let stream = self.connect(message).await?;
        let (status, bytes) = exchange::ask(stream, Method::GET, path, Vec::new()).await?;
        Ok((status, String::from_utf8(bytes.to_vec())?))
    }

    async fn head(&self, message: &str, path: &str) -> Result<StatusCode> {
        let (status, body) =
            exchange::ask(self.connect(message).await?, Method::HEAD, path, Vec::new()).await?;
        ensure!(body.is_empty(), "an answer to HEAD with a body");
        Ok(status)
    }

    async fn connect(&self, message: &str) -> Result<TcpStream> {
        let log = fs::read_to_string(&self.log)?;
        let line = log
            .lines()
            .find(|line| line.contains(message))
            .with_context(|| format!("{message:?} in the log"))?;
        let address = serde_json::from_str::<Value>(line)?["address"].as_str().context("address")?.to_owned();
        let port = address.rsplit(':').next().context("port")?.parse::<u16>()?;
        Ok(TcpStream::connect(("localhost", port)).await?)
    }

    /// One request on a connection of its own, as the plugins do. `Null` is no body.
    pub async fn ask(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Answer> {
        self.ask_raw(method, path, json_body(body)?).await
    }

    /// One request with any body.
    pub async fn ask_raw(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer> {
        let (status, bytes) = ask_socket(&self.socket, method, path, body).await?;
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or_default() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the end of the process, which somebody else has brought about.
    pub fn wait_ended(&mut self) -> Result<()> {
        poll::until("the agent's end", START_LIMIT, || {
            ensure!(self.process.check_running().is_err(), "it runs");
            Ok(())
        })
    }

    /// Asks it to end and waits for it.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(START_LIMIT)?;
        ensure!(status.success(), "the agent ended with {status}: {}", self.process.tail());
        Ok(())
    }

    /// Kills it where it stands.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        self.process.tail()
    }
}
