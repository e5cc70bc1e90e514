//! Agent processes, each for a node of its own, without a dataplane (nothing of theirs touches the network).

use std::fs;
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

/// Running agents; dropping them ends the processes.
pub(crate) struct Agents {
    pub(crate) sockets: Vec<PathBuf>,
    processes: Vec<Process>,
    folder: tempfile::TempDir,
}

/// The node of an agent.
pub(crate) fn node(index: usize) -> String {
    format!("bench-{index}")
}

impl Agents {
    pub(crate) async fn start(plane: &ControlPlane, program: &Path, count: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut agents = Self { sockets: Vec::new(), processes: Vec::new(), folder };
        for index in 0..count {
            agents.spawn(plane, program, index)?;
        }
        for (socket, process) in agents.sockets.iter().zip(&mut agents.processes) {
            poll::until_async("agent", READY_LIMIT, async || {
                let (status, _) = ask_socket(socket, Method::GET, path::HEALTHY, Vec::new()).await?;
                ensure!(status.is_success(), "unhealthy: {status}");
                Ok(())
            })
            .await
            .with_context(|| process.tail())?;
        }
        Ok(agents)
    }

    fn spawn(&mut self, plane: &ControlPlane, program: &Path, index: usize) -> Result<()> {
        let folder = self.folder.path().join(index.to_string());
        fs::create_dir(&folder)?;
        let socket = folder.join("agent.sock");
        let config = folder.join("conf.yml");
        let content = json!({
            "ipamUnixSocketPath": socket, "enableIPv4": true, "enableIPv6": true, "tuneSysctlConfig": false,
        });
        // JSON is YAML.
        fs::write(&config, content.to_string())?;
        let base = 20_000 + index * 10;
        let mut command = Command::new(program);
        command
            .args(["daemon", "--config-path"])
            .arg(&config)
            .env("KUBECONFIG", plane.admin())
            .env("SPIDERPOOL_NODE_NAME", node(index))
            .env("SPIDERPOOL_POD_NAME", format!("spiderpool-agent-{index}"))
            .env("SPIDERPOOL_POD_NAMESPACE", "kube-system")
            .env("SPIDERPOOL_LOG_LEVEL", "warn")
            .env("SPIDERPOOL_HEALTH_PORT", base.to_string())
            .env("SPIDERPOOL_METRIC_HTTP_PORT", (base + 1).to_string())
            .env("SPIDERPOOL_GOPS_LISTEN_PORT", (base + 2).to_string())
            .env("SPIDERPOOL_STATE_DIR", &folder)
            .env("SPIDERPOOL_BPF_DIR", folder.join("no-bpffs"));
        self.processes.push(Process::start(&node(index), &command, &folder.join("agent.log"))?);
        self.sockets.push(socket);
        Ok(())
    }

    /// Memory of all agents, now.
    pub(crate) fn memory(&self) -> Result<Vec<Memory>> {
        self.processes.iter().map(|process| Memory::of(process.id())).collect()
    }
}
