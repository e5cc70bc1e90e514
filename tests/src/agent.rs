//! spiderpool-agent on a node, as its DaemonSet runs it: identity, configuration file, environment.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::poll;
use crate::process::Process;
use crate::tools;
use crate::topology::Node;

const START_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(10);
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
        let config = node.folder()?.join("conf.yml");
        fs::write(&config, json!({"enableIPv4": true, "enableIPv6": true}).to_string())?;
        let mut command = node.command(&tools::spiderpool("spiderpool-agent")?);
        command
            .args(["daemon", "--config-path"])
            .arg(&config)
            .env("KUBECONFIG", plane.agent(&node.name)?)
            .env("SPIDERPOOL_NODE_NAME", &node.name)
            .env("SPIDERPOOL_POD_NAMESPACE", "kube-system")
            .env("SPIDERPOOL_POD_NAME", format!("spiderpool-agent-{}", node.name))
            .env("SPIDERPOOL_LOG_LEVEL", "debug")
            .env("SPIDERPOOL_BPF_OBJECT", object);
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
    pub fn coordinator_config(node: &Node, pod: &str) -> Result<Value> {
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

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// GET on the agent's socket, which is in the node's /run. HTTP/1.0, so that the answer ends with the connection.
fn request(node: &Node, path: &str, body: &Value) -> Result<Value> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = node.run(|| {
        let mut stream = UnixStream::connect(Path::new(SOCKET)).context("the agent's socket")?;
        stream.set_read_timeout(Some(STOP_LIMIT))?;
        let length = body.len();
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("answer {answer:?}"))?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "GET {path}: {head} {body}");
    Ok(serde_json::from_str(body).unwrap_or_default())
}
