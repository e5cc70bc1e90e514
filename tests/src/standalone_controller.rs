//! spiderpool-controller as a process beside a control plane, with the rights that it needs and no more.

mod webhooks;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::control_plane::ControlPlane;
use crate::exchange;
use crate::process::Process;
use crate::{poll, tools};

pub use webhooks::{LABEL, webhook_configurations, webhook_configurations_with};

/// What a controller may do, for the group of the controllers' identities.
const RIGHTS: &str = include_str!("standalone_controller/rights.yaml");
/// The Secret with the webhooks' certificate.
pub const CERTIFICATE: &str = "spiderpool-controller-server-certs";
const GROUP: &str = "spiderpool-controllers";
const START_LIMIT: Duration = Duration::from_secs(30);
/// Longer than `SPIDERPOOL_SHUTDOWN_DELAY_SECONDS` of a test that gives it.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How a controller is started.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Where its configuration and log are.
    pub folder: &'a Path,
    /// Its pod's namespace: controllers of one namespace compete.
    pub namespace: &'a str,
    /// Its pod's name.
    pub name: &'a str,
    /// Further environment.
    pub environment: &'a [(&'a str, &'a str)],
}

/// A running controller; dropping it kills it.
#[derive(Debug)]
pub struct StandaloneController {
    process: Process,
    log: PathBuf,
}

impl StandaloneController {
    /// Starts a controller and waits until it is ready.
    pub async fn start(plane: &ControlPlane, start: Start<'_>) -> Result<Self> {
        Self::start_with(plane, start, &json!({})).await
    }

    /// The same with these keys in its configuration file.
    pub async fn start_with(plane: &ControlPlane, start: Start<'_>, file: &Value) -> Result<Self> {
        Self::start_by(plane, start, &Self::identity(plane, start.name)?, file).await
    }

    /// The kubeconfig file with the rights of a controller.
    pub fn identity(plane: &ControlPlane, name: &str) -> Result<PathBuf> {
        plane.identity(&format!("spiderpool-controller:{name}"), Some(GROUP))
    }

    /// As [`Self::start_with`], with access by `kubeconfig`.
    pub async fn start_by(
        plane: &ControlPlane,
        start: Start<'_>,
        kubeconfig: &Path,
        file: &Value,
    ) -> Result<Self> {
        plane.apply(RIGHTS)?;
        // As the chart makes it: the controller may not create it.
        let name = json!({"name": CERTIFICATE, "namespace": start.namespace});
        plane.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": name}).to_string())?;
        let mut controller = Self::spawn(kubeconfig, start, file)?;
        poll::until_async(&format!("controller {}", start.name), START_LIMIT, async || {
            let (status, body) = controller.probe("/v1/runtime/readiness").await?;
            ensure!(status == StatusCode::OK, "{body}");
            Ok(())
        })
        .await
        .with_context(|| controller.process.tail())?;
        controller.process.check_running()?;
        Ok(controller)
    }

    fn spawn(kubeconfig: &Path, start: Start<'_>, file: &Value) -> Result<Self> {
        let folder = start.folder.join(start.name);
        fs::create_dir_all(&folder)?;
        let (config, log) = (folder.join("conf.yml"), folder.join("controller.log"));
        let mut keys = json!({
            "enableIPv4": true, "enableIPv6": true, "enableStatefulSet": true, "enableKubevirtStaticIP": true,
        });
        let more = file.as_object().into_iter().flatten();
        for (key, value) in more {
            keys[key] = value.clone();
        }
        fs::write(&config, keys.to_string())?;
        drop(fs::remove_file(&log));
        let mut command = Command::new(tools::spiderpool("spiderpool-controller")?);
        command
            .args(["daemon", "--config-path"])
            .arg(&config)
            .env("KUBECONFIG", kubeconfig)
            .env("SPIDERPOOL_POD_NAME", start.name)
            .env("SPIDERPOOL_POD_NAMESPACE", start.namespace)
            .env("SPIDERPOOL_LOG_LEVEL", "debug")
            .env("SPIDERPOOL_HEALTH_PORT", "0")
            .env("SPIDERPOOL_WEBHOOK_PORT", "0")
            .env("SPIDERPOOL_WEBHOOK_EXTRA_IP_ADDRESSES", "127.0.0.1")
            .env("SPIDERPOOL_ENABLED_METRIC", "true")
            .env("SPIDERPOOL_METRIC_HTTP_PORT", "0")
            .env("SPIDERPOOL_SHUTDOWN_DELAY_SECONDS", "0")
            // As the chart has it.
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            .envs(start.environment.iter().copied());
        let process = Process::start(&format!("controller {}", start.name), &command, &log)?;
        Ok(Self { process, log })
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

    /// The value of a metric.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("{name} in the metrics"))?.parse()?)
    }

    /// GET on a port that the controller's log names.
    async fn get(&self, message: &str, path: &str) -> Result<(StatusCode, String)> {
        let port = self.port(message)?;
        let stream = TcpStream::connect(("localhost", port)).await?;
        let (status, bytes) = exchange::ask(stream, Method::GET, path, Vec::new()).await?;
        Ok((status, String::from_utf8(bytes.to_vec())?))
    }

    async fn head(&self, message: &str, path: &str) -> Result<StatusCode> {
        let stream = TcpStream::connect(("localhost", self.port(message)?)).await?;
        let (status, body) = exchange::ask(stream, Method::HEAD, path, Vec::new()).await?;
        ensure!(body.is_empty(), "an answer to HEAD with a body");
        Ok(status)
    }

    /// The port of its webhooks.
    pub fn webhook_port(&self) -> Result<u16> {
        self.port("webhooks are served")
    }

    /// A port that the log names.
    fn port(&self, message: &str) -> Result<u16> {
        let log = fs::read_to_string(&self.log)?;
        let line = log.lines().find(|line| line.contains(message)).with_context(|| format!("{message:?}"))?;
        let address = serde_json::from_str::<Value>(line)?["address"].as_str().context("address")?.to_owned();
        Ok(address.rsplit(':').next().context("port")?.parse()?)
    }

    /// Whether it leads.
    pub async fn leads(&self) -> Result<bool> {
        Ok(self.metric("spiderpool_controller_leader").await? > 0.5)
    }

    /// What it has written to its log.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end and waits for it.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "the controller ended with {status}: {}", self.process.tail());
        Ok(())
    }

    /// Kills it where it stands.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }
}
