//! spiderpool-agent on a node, as its DaemonSet runs it: identity, configuration file, environment.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::exchange::{ask_socket, json_body};
use crate::namespaces::Namespaces;
use crate::poll;
use crate::process::Process;
use crate::tools;
use crate::topology::Node;

/// On a busy machine the kernel verifies the programs for many seconds.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Where an agent with mounts of its own finds those of the node.
const MOUNT_NAMESPACE: &str = "SPIDERPOOL_NODE_MOUNT_NAMESPACE";
const SOCKET: &str = "/var/run/spidernet/spiderpool.sock";

/// A running agent; dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    process: Process,
}

impl Agent {
    /// Starts the agent of `node` and waits until it answers.
    pub fn start(plane: &ControlPlane, node: &Node) -> Result<Self> {
        Self::start_with_object(plane, node, &tools::bpf_object()?)
    }

    /// As [`Self::start`], with the programs from another file, which may come later.
    pub fn start_with_object(plane: &ControlPlane, node: &Node, object: &Path) -> Result<Self> {
        Self::run(plane, node, object, &json!({}), &[])
    }

    /// As [`Self::start`], with more variables in its environment.
    pub fn start_with_environment(
        plane: &ControlPlane,
        node: &Node,
        more: &[(String, String)],
    ) -> Result<Self> {
        Self::run(plane, node, &tools::bpf_object()?, &json!({}), more)
    }

    /// As [`Self::start_with_environment`], with mounts of its own, as a container has them: what is mounted and unmounted on the node
    /// later it does not see.
    pub fn start_contained(plane: &ControlPlane, node: &Node, more: &[(String, String)]) -> Result<Self> {
        let mounts = node.mounts().context("the node has no mounts of its own")?.display().to_string();
        let mut environment = vec![(MOUNT_NAMESPACE.to_owned(), mounts)];
        environment.extend_from_slice(more);
        Self::run(plane, node, &tools::bpf_object()?, &json!({}), &environment)
    }

    /// As [`Self::start`], with more keys in its configuration file.
    pub fn start_with_config(plane: &ControlPlane, node: &Node, more: &Value) -> Result<Self> {
        Self::run(plane, node, &tools::bpf_object()?, more, &[])
    }

    fn run(
        plane: &ControlPlane,
        node: &Node,
        object: &Path,
        more: &Value,
        environment: &[(String, String)],
    ) -> Result<Self> {
        let config = node.folder()?.join("conf.yml");
        let mut content = json!({"enableIPv4": true, "enableIPv6": true});
        for (key, value) in more.as_object().into_iter().flatten() {
            content[key] = value.clone();
        }
        // JSON is YAML.
        fs::write(&config, content.to_string())?;
        let program = tools::spiderpool("spiderpool-agent")?;
        let mut command = if environment.iter().any(|(name, _)| name == MOUNT_NAMESPACE) {
            let mut command = node.command(Path::new("unshare"));
            command.args(["--mount", "--propagation=private", "--"]).arg(program);
            command
        } else {
            node.command(&program)
        };
        command
            .args(["daemon", "--config-path"])
            .arg(&config)
            .env("KUBECONFIG", plane.agent(&node.name)?)
            .env("SPIDERPOOL_NODE_NAME", &node.name)
            .env("SPIDERPOOL_POD_NAMESPACE", "kube-system")
            .env("SPIDERPOOL_POD_NAME", format!("spiderpool-agent-{}", node.name))
            .env("SPIDERPOOL_LOG_LEVEL", "debug")
            .env("SPIDERPOOL_BPF_OBJECT", object)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let mut agent = Self { process: node.start_daemon("spiderpool-agent", &command)? };
        poll::until(&format!("agent of {}", node.name), START_LIMIT, || {
            if let Err(ended) = agent.process.check_running() {
                return Ok(Err(ended));
            }
            request(node, "/v1/ipam/healthy", &Value::Null).map(|_| Ok(()))
        })??;
        Ok(agent)
    }

    /// The coordinator configuration that the agent hands out for a pod.
    pub fn coordinator_config(node: &Namespaces, pod: &str) -> Result<Value> {
        request(node, "/v1/coordinator/config", &json!({"podName": pod, "podNamespace": "default"}))
    }

    /// Asks the agent to end and waits for it.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "spiderpool-agent ended with {status}: {}", self.process.tail());
        Ok(())
    }

    /// Kills it where it stands.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// Its log, that of earlier agents of the node included.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// GET on the agent's socket, which is in the node's /run.
fn request(node: &Namespaces, path: &str, body: &Value) -> Result<Value> {
    let body = json_body(body)?;
    let (status, answer) = node.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let asked = ask_socket(Path::new(SOCKET), Method::GET, path, body);
            tokio::time::timeout(poll::scaled(STOP_LIMIT), asked).await.context("no answer")?
        })
    })?;
    ensure!(status == StatusCode::OK, "GET {path}: {status} {}", String::from_utf8_lossy(&answer));
    Ok(serde_json::from_slice(&answer).unwrap_or_default())
}
