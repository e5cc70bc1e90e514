//! Agent processes, each for a node of its own, without a dataplane (nothing of theirs touches the network).

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::json;
use spiderpool_api::agent::path;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::exchange::ask_socket;
use spiderpool_tests::poll;
use spiderpool_tests::process::Process;

use crate::memory::Memory;

const READY_LIMIT: Duration = Duration::from_mins(1);
/// Agents that start at the same time.
const STARTED_AT_ONCE: usize = 25;
/// From here on, each has ports of its own; below those that the kernel gives to clients.
const FIRST_PORT: usize = 20_000;
const PORTS: usize = 10;
/// Nodes have indexes below this.
const NODES: usize = 1200;
/// All agents are one user, as in a cluster, so that the API server queues and limits their requests as it does there. What members
/// of system:masters ask for it does not limit.
const USER: &str = "system:serviceaccount:spiderpool:spiderpool-agent";
const GROUP: &str = "system:serviceaccounts";

/// Running agents by the indexes of their nodes; dropping them ends the processes.
pub(crate) struct Agents {
    program: PathBuf,
    kubeconfig: PathBuf,
    running: BTreeMap<usize, Agent>,
    folder: tempfile::TempDir,
}

struct Agent {
    socket: PathBuf,
    process: Process,
}

/// The node of an agent.
pub(crate) fn node(index: usize) -> String {
    format!("bench-{index}")
}

impl Agents {
    /// Starts the agents of these nodes.
    pub(crate) async fn start(plane: &ControlPlane, program: &Path, nodes: Range<usize>) -> Result<Self> {
        let (running, folder) = (BTreeMap::new(), tempfile::tempdir()?);
        let mut agents =
            Self { program: program.to_owned(), kubeconfig: kubeconfig(plane)?, running, folder };
        agents.start_more(nodes).await?;
        Ok(agents)
    }

    /// Starts the agents of further nodes.
    pub(crate) async fn start_more(&mut self, nodes: Range<usize>) -> Result<()> {
        ensure!(nodes.end <= NODES, "there are ports for {NODES} agents only");
        let nodes: Vec<_> = nodes.collect();
        for nodes in nodes.chunks(STARTED_AT_ONCE) {
            for index in nodes {
                let agent = self.spawn(*index)?;
                self.running.insert(*index, agent);
            }
            for index in nodes {
                let Agent { socket, process } =
                    self.running.get_mut(index).context("it was started a moment ago")?;
                poll::until_async("agent", READY_LIMIT, async || {
                    if let Err(ended) = process.check_running() {
                        return Ok(Err(ended));
                    }
                    let (status, _) = ask_socket(socket, Method::GET, path::HEALTHY, Vec::new()).await?;
                    ensure!(status.is_success(), "unhealthy: {status}");
                    Ok(Ok(()))
                })
                .await
                .with_context(|| process.tail())??;
            }
        }
        Ok(())
    }

    fn spawn(&self, index: usize) -> Result<Agent> {
        let folder = self.folder.path().join(index.to_string());
        fs::create_dir(&folder)?;
        let socket = folder.join("agent.sock");
        let config = folder.join("conf.yml");
        let content = json!({
            "ipamUnixSocketPath": socket, "enableIPv4": true, "enableIPv6": true, "tuneSysctlConfig": false,
        });
        // JSON is YAML.
        fs::write(&config, content.to_string())?;
        let base = FIRST_PORT + index * PORTS;
        let mut command = Command::new(&self.program);
        command
            .args(["daemon", "--config-path"])
            .arg(&config)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("SPIDERPOOL_NODE_NAME", node(index))
            .env("SPIDERPOOL_POD_NAME", format!("spiderpool-agent-{index}"))
            .env("SPIDERPOOL_POD_NAMESPACE", "kube-system")
            .env("SPIDERPOOL_LOG_LEVEL", "warn")
            .env("SPIDERPOOL_HEALTH_PORT", base.to_string())
            .env("SPIDERPOOL_METRIC_HTTP_PORT", (base + 1).to_string())
            .env("SPIDERPOOL_GOPS_LISTEN_PORT", (base + 2).to_string())
            .env("SPIDERPOOL_STATE_DIR", &folder)
            .env("SPIDERPOOL_BPF_DIR", folder.join("no-bpffs"));
        let process = Process::start(&node(index), &command, &folder.join("agent.log"))?;
        Ok(Agent { socket, process })
    }

    /// The socket of the agent of a node.
    pub(crate) fn socket(&self, node: usize) -> &Path {
        &self.running[&node].socket
    }

    /// Memory of all agents, now.
    pub(crate) fn memory(&self) -> Result<Vec<Memory>> {
        self.running.values().map(|agent| Memory::of(agent.process.id())).collect()
    }
}

/// With an administrator's rights: a peer may need others than ours.
fn kubeconfig(plane: &ControlPlane) -> Result<PathBuf> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench-agents"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    });
    plane.apply(&binding.to_string())?;
    plane.identity(USER, Some(GROUP))
}
